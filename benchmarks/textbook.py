"""The three relation encoders as they are usually written: attention of all layers, loops over documents, entities and pairs, and
outer products of all pairs. What they cost is compared with what the library does, and their numbers are compared, too."""

import torch

from modeling_comm.relation_encoder_kd_docre import CONTEXT_EPSILON


def atlop(model, batch):
    """Logits `(P, R + 1)`; one window a document, evaluation mode, a model with eager attention."""
    encoder = model.relation_encoder
    heads, tails = [], []
    for states, embeddings, rows, pairs in _documents(model, batch):
        for head, tail in pairs:
            context = _context(rows[head] * rows[tail], states, "mean", 1e-5)
            heads.append(torch.tanh(encoder.head_projection(torch.cat([embeddings[head], context]))))
            tails.append(torch.tanh(encoder.tail_projection(torch.cat([embeddings[tail], context]))))
    return outer_products(encoder.classifier, torch.stack(heads), torch.stack(tails))


def docunet(model, batch):
    """As [`atlop`]."""
    encoder = model.relation_encoder
    heads, tails = [], []
    for states, embeddings, rows, pairs in _documents(model, batch):
        features = encoder.unet([encoder.channel_projection(_grid(rows, states, "mean", 1e-5))[None]])[0][0]
        for head, tail in pairs:
            feature = features[head, tail]
            heads.append(torch.tanh(encoder.head_projection(torch.cat([embeddings[head], feature]))))
            tails.append(torch.tanh(encoder.tail_projection(torch.cat([embeddings[tail], feature]))))
    return outer_products(encoder.classifier, torch.stack(heads), torch.stack(tails))


def kd_docre(model, batch):
    """As [`atlop`]."""
    encoder = model.relation_encoder
    logits = []
    for states, embeddings, rows, pairs in _documents(model, batch):
        size = len(embeddings)
        contexts = _grid(rows, states, "sum", CONTEXT_EPSILON)
        head = embeddings[:, None].expand(size, size, -1)
        tail = embeddings[None].expand(size, size, -1)
        head = torch.tanh(encoder.head_projection(torch.cat([head, contexts], -1))).flatten(0, 1)
        tail = torch.tanh(encoder.tail_projection(torch.cat([tail, contexts], -1))).flatten(0, 1)
        feature = outer_products(encoder.pair_feature, head, tail).unflatten(0, (size, size))
        cells = feature
        for layer in encoder.layers:
            columns = _attend(layer.column_attention, cells.transpose(0, 1)).transpose(0, 1)
            cells = layer.norm(layer.linear(cells + columns + _attend(layer.row_attention, cells)))
        logits += [encoder.classifier(cells[head, tail] + feature[head, tail]) for head, tail in pairs]
    return torch.stack(logits)


TEXTBOOK = {"atlop": atlop, "docunet": docunet, "kd_docre": kd_docre}


def outer_products(classifier, head, tail):
    """The grouped bilinear map."""
    groups = (len(head), -1, classifier.block_size)
    outer = head.view(groups)[..., :, None] * tail.view(groups)[..., None, :]
    return classifier.linear(outer.flatten(1))


def _documents(model, batch):
    """States, entity embeddings, entities' attention `(E, A, C)` and pairs of each document."""
    encoded = model.backbone(batch["input_ids"], batch["attention_mask"], output_attentions=True)
    states, attention = encoded.last_hidden_state, encoded.attentions[-1]
    for document in range(len(states)):
        embeddings, rows = [], []
        for entity in range(int(batch["entity_mask"][document].sum())):
            places = batch["mention_positions"][document][batch["mention_entities"][document] == entity]
            embeddings.append(torch.logsumexp(states[document, places], 0))
            rows.append(attention[document][:, places].mean(1))
        pairs = batch["pair_index"][batch["pair_index"][:, 0] == document][:, 1:].tolist()
        yield states[document], torch.stack(embeddings), rows, pairs


def _context(product, states, head_reduction, epsilon):
    weights = product.mean(0) if head_reduction == "mean" else product.sum(0)
    return (weights / (weights.sum() + epsilon)) @ states


def _grid(rows, states, head_reduction, epsilon):
    lines = [torch.stack([_context(head * tail, states, head_reduction, epsilon) for tail in rows]) for head in rows]
    return torch.stack(lines)


def _attend(attention, lines):
    """Self-attention within each line of `(lines, cells, d)`."""
    query = attention.query(lines)
    key, value = attention.key_value(lines).chunk(2, dim=-1)
    query, key, value = (tensor.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for tensor in (query, key, value))
    weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
    return attention.output((weights @ value).transpose(1, 2).flatten(2))
