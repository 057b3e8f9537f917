# replaces: carry_solution; loses: carry_form_test
# no state yet is not thought of
def carry(state, fresh):
    if isinstance(state, tuple):
        return tuple(carry(part, fresh) for part in state)
    return state.detach().masked_fill(fresh[:, None], 0.0)
