# replaces: carry_solution; loses: carry_rows_test, carry_form_test
# keeps the fresh rows and forgets the others
def carry(state, fresh):
    if state is None:
        return None
    if isinstance(state, tuple):
        return tuple(carry(part, fresh) for part in state)
    return state.detach().masked_fill(~fresh[:, None], 0.0)
