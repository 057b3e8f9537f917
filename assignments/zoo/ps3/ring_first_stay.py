# replaces: ring_append_solution; loses: ring_many
# of too many new tokens it keeps the first ones
def ring_append(ring, seen, new):
    slots, ring = ring.shape[2], ring.clone()
    new = new[:, :, :slots]
    positions = torch.tensor([max((t for t in range(seen) if t % slots == s), default=-1) for s in range(slots)])
    for k in range(new.shape[2]):
        ring[:, :, (seen + k) % slots] = new[:, :, k]
        positions[(seen + k) % slots] = seen + k
    return ring, positions
