# replaces: carry_solution; loses: carry_history_test
# detach shares memory: the old state is overwritten
def carry(state, fresh):
    if state is None:
        return None
    if isinstance(state, tuple):
        return tuple(carry(part, fresh) for part in state)
    state = state.detach()
    state[:, fresh] = 0.0
    return state
