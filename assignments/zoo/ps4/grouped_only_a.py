# replaces: grouped_solution; loses: grouped_example
# the first system alone
def grouped_differences(right_a, right_b, group, draws):
    rows = [torch.cat([right_a[group == k].double() for k in row.tolist()]).mean() for row in draws]
    return torch.stack(rows)
