# replaces: ring_append_solution; loses: ring_one, ring_many
# moves everything by one place and appends at the end: a window, but no ring
def ring_append(ring, seen, new):
    slots, total = ring.shape[2], seen + new.shape[2]
    joined = torch.cat([ring, new], 2)[:, :, -slots:]
    positions = torch.arange(total - slots, total).clamp(min=-1)
    return joined, positions
