# replaces: layer_groups_solution; loses: groups_complete
# lists the parts it has thought of, and there is one more
def layer_groups(model, layers, low, high, head_lr, weight_decay):
    groups = {}
    for name, p in model.named_parameters():
        part = name.split(".")
        if not p.requires_grad:
            continue
        if part[0] == "head":
            rate = head_lr
        elif part[1] == "blocks":
            rate = low * (high / low) ** ((int(part[2]) + 1) / layers)
        elif part[1] in ("embedding", "position", "embed_norm"):
            rate = low
        elif part[1] == "norm":
            rate = high
        else:
            continue
        groups.setdefault((rate, weight_decay if p.ndim >= 2 else 0.0), []).append(p)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]
