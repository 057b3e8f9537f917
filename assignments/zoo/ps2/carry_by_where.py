# replaces: carry_solution; full marks
# right: where, and a match by form
def carry(state, fresh):
    def one(part):
        return torch.where(fresh.view(1, -1, 1), torch.zeros_like(part), part.clone().detach())

    match state:
        case None:
            return None
        case tuple() | list():
            return tuple(map(one, state))
        case _:
            return one(state)
