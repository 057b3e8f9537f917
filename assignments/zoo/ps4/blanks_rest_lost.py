# replaces: blanks_solution; loses: blanks_example
# forgets what stands after the last span
def blanks(ids, before, lengths, sentinels):
    text, inputs, targets, place, visible = ids.tolist(), [], [], 0, 0
    for k in range(len(lengths)):
        stop = place + before[k] - visible
        inputs += [*text[place:stop], sentinels[k]]
        targets += [sentinels[k], *text[stop : stop + lengths[k]]]
        place, visible = stop + lengths[k], before[k]
    return torch.tensor(inputs), torch.tensor([*targets, sentinels[len(lengths)]])
