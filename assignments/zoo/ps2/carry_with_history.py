# replaces: carry_solution; loses: carry_history_test
# drags the graph along
def carry(state, fresh):
    if state is None:
        return None
    if isinstance(state, tuple):
        return tuple(carry(part, fresh) for part in state)
    return state.masked_fill(fresh[:, None], 0.0)
