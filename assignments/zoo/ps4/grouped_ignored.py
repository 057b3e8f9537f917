# replaces: grouped_solution; loses: grouped_example
# draws items instead of groups
def grouped_differences(right_a, right_b, group, draws):
    return (right_a.double() - right_b.double())[draws].mean(1)
