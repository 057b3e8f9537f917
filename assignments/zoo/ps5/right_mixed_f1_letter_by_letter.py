# replaces: mixed_f1_solution; full marks
# One pass over the letters, and common units struck off a list.
def mixed_f1(said, right):
    """Cut both texts by hand."""

    def cut(text):
        found, run = [], ""
        for letter in unicodedata.normalize("NFKC", text).lower() + " ":
            chinese = 0x3400 <= ord(letter) <= 0x4DBF or 0x4E00 <= ord(letter) <= 0x9FFF
            if letter.isalnum() and not chinese:
                run += letter
                continue
            if run:
                found.append(run)
            run = ""
            if chinese:
                found.append(letter)
        return found

    best = 0.0
    for answer in right if right else [""]:
        mine, other = cut(said), cut(answer)
        size = len(mine) + len(other)
        common = 0
        for unit in mine:
            if unit in other:
                other.remove(unit)
                common += 1
        best = max(best, 2 * common / size if size else 1.0)
    return best
