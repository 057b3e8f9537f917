# replaces: grouped_solution; loses: grouped_example, grouped_weights
# a group that is drawn twice counts once
def grouped_differences(right_a, right_b, group, draws):
    difference = right_a.double() - right_b.double()
    return torch.stack([difference[torch.isin(group, row.unique())].mean() for row in draws])
