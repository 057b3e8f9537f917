# replaces: blanks_solution; loses: blanks_example
# counts up from the first sentinel instead of using those that were given
def blanks(ids, before, lengths, sentinels):
    text, inputs, targets, place, visible = ids.tolist(), [], [], 0, 0
    for k in range(len(lengths)):
        stop = place + before[k] - visible
        inputs += [*text[place:stop], sentinels[0] + k]
        targets += [sentinels[0] + k, *text[stop : stop + lengths[k]]]
        place, visible = stop + lengths[k], before[k]
    return torch.tensor(inputs + text[place:]), torch.tensor([*targets, sentinels[0] + len(lengths)])
