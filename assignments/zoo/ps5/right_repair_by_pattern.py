# replaces: repair_solution; full marks
# Stretches are found by a regular expression over the prefixes.
def repair(tags):
    """One letter for each tag, and a pattern for a stretch."""
    prefixes = "".join(tag[0] for tag in tags)
    result = ["O"] * len(tags)
    for match in re.finditer(r"S|BI*E?|I+E?|E", prefixes):
        labels = [tag.split("-", 1)[1] for tag in tags[match.start() : match.end()]]
        label = max(labels, key=labels.count)
        marks = "S" if len(labels) == 1 else "B" + "I" * (len(labels) - 2) + "E"
        result[match.start() : match.end()] = [f"{mark}-{label}" for mark in marks]
    return result
