# replaces: ring_append_solution; loses: ring_used
# writes into the ring that belongs to the caller
def ring_append(ring, seen, new):
    slots = ring.shape[2]
    positions = torch.tensor([max((t for t in range(seen) if t % slots == s), default=-1) for s in range(slots)])
    for k in range(new.shape[2]):
        ring[:, :, (seen + k) % slots] = new[:, :, k]
        positions[(seen + k) % slots] = seen + k
    return ring, positions
