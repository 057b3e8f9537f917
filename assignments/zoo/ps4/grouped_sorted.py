# replaces: grouped_solution; loses: grouped_example
# takes the items of a group to stand side by side, in the order of the groups
def grouped_differences(right_a, right_b, group, draws):
    parts = (right_a.double() - right_b.double()).split(group.bincount().tolist())
    return torch.stack([torch.cat([parts[k] for k in row.tolist()]).mean() for row in draws])
