# replaces: carry_solution; loses: carry_form_test
# an LSTM's memory goes on into the new document
def carry(state, fresh):
    if state is None:
        return None
    if isinstance(state, tuple):
        return (carry(state[0], fresh), *(part.detach() for part in state[1:]))
    return state.detach().masked_fill(fresh[:, None], 0.0)
