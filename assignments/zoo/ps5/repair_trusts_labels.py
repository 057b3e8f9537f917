# replaces: repair_solution; loses: repair_labels_test
# A new label begins a new stretch, as in the lenient reading.
def repair(tags):
    """A row of tags that obeys the rules of BIOES.

    Args:
        tags: a list of strings: "O", or one of B, I, E, S, a hyphen and a label. Labels may hold hyphens.

    Returns:
        A list of as many strings.
    """
    stretches, opened = [], False
    for t, tag in enumerate(tags):
        prefix, _, label = tag.partition("-")
        if prefix == "O":
            opened = False
            continue
        if not opened or prefix in "BS" or label != stretches[-1][-1][1]:
            stretches.append([])
        stretches[-1].append((t, label))
        opened = prefix in "BI"
    repaired = ["O"] * len(tags)
    for stretch in stretches:
        label = Counter(label for _, label in stretch).most_common(1)[0][0]  # of equal counts, the first one met
        for t, _ in stretch:
            repaired[t] = f"I-{label}"
        first, last = stretch[0][0], stretch[-1][0]
        repaired[first], repaired[last] = f"B-{label}", f"E-{label}"
        if first == last:
            repaired[first] = f"S-{label}"
    return repaired
