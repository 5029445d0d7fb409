#!/usr/bin/env python
"""
Fine-tune, evaluate and apply COMM models for document-level relation extraction on DocRED, Re-DocRED, DocRED-Mixed or your own
documents in DocRED's format.

    python run_docre.py --dataset_config redocred --data_dir DATA --model_name_or_path roberta-large \
        --do_train --do_eval --do_predict --output_dir outputs/redocred

Arguments may also stand in a JSON or YAML file, given first; flags behind it override it:

    python run_docre.py examples/redocred_mini_cpu.yaml --seed 7

Knowledge distillation takes three calls: a trained teacher labels distantly supervised documents (--do_label --train_split
train_distant --teacher_logits FOLDER), a student trains on them (--do_train with the same two), and then on human labels, from
its checkpoint (--model_name_or_path).

Several processes: `torchrun --nproc_per_node 2 run_docre.py ...` or `accelerate launch run_docre.py ...`. A run that was
interrupted goes on from its last complete checkpoint when the same command is given again.
"""

import dataclasses
import functools
import itertools
import json
import logging
import sys
import time
from pathlib import Path

try:
    import datasets
    from accelerate.utils import gather_object
except ModuleNotFoundError as error:
    sys.exit(f'run_docre.py needs {error.name!r}: pip install "comm-docre[training]"')
import torch
import transformers
from transformers import EarlyStoppingCallback, PreTrainedConfig, TrainerState, set_seed

from dataset_scripts.builder import find_data_files, load_splits, relation_labels, to_document
from dataset_scripts.describe import describe_documents, format_description
from dataset_scripts.provenance import read_provenance
from modeling_comm import CommConfig, CommForDocumentRelationExtraction, CommProcessor
from modeling_comm.data import get_dataset
from modeling_comm.decoding import official_predictions
from modeling_comm.documents import entity_name
from modeling_comm.evaluation.scoring import format_scores, load_ign_reference, score
from modeling_comm.evaluation.type_prior import TypePrior
from modeling_comm.extensions import import_extensions
from modeling_comm.processing_comm import encoding_report, what_was_lost
from modeling_comm.reporting.model_card import read_run, write_model_card
from modeling_comm.reporting.run_record import (
    epoch_log,
    run_record,
    summarize,
)
from modeling_comm.training.batching import DocumentStream
from modeling_comm.training.checkpoints import prepare_output, settings_of
from modeling_comm.training.distillation import DistillationTrainer, TeacherLogits, finish_labels, label_documents
from modeling_comm.training.script_arguments import DistillationArguments, ModelArguments, parse_arguments
from modeling_comm.training.trainer import CommTrainer, check_titles, encode_dataset
from modeling_comm.utils.files import write_json

logger = logging.getLogger("run_docre")


def load_documents(data_args, model_args, labelling=False):
    """The splits, the record of their files, and the facts that Ign F1 leaves out; for labelling the training split alone."""
    named = {
        "train": data_args.train_file,
        "validation": data_args.validation_file,
        "test": data_args.test_file,
        "train_distant": data_args.train_distant_file,
    }
    named = {split: path for split, path in named.items() if path}
    wanted, official = data_args.train_split, bool(data_args.data_dir or not named)
    if "train_distant" in named and wanted != "train_distant":
        raise ValueError("--train_distant_file is read with --train_split train_distant only")
    if wanted == "train_distant" and not (official or wanted in named):
        raise ValueError("--train_split train_distant: found neither --train_distant_file nor --data_dir")
    find = functools.partial(find_data_files, data_args.dataset_config, data_args.data_dir)
    how = {"on_bad_document": data_args.on_bad_document, "cache_dir": model_args.cache_dir}
    load = functools.partial(load_splits, data_args.dataset_config, **how)
    files = dict(named)
    if official and not labelling:
        try:
            files = find() | named
        except FileNotFoundError:
            if not named:  # else the folder is there for its relations alone
                raise
    apart = labelling or data_args.streaming or wanted != "train"  # the training split is loaded by itself
    if apart and official and wanted not in files:
        files |= find(splits=[wanted])
    together = {} if labelling else {split: path for split, path in files.items() if not (apart and split == wanted)}
    splits = load(data_files=together) if together else {}
    record = read_provenance(splits) if together else {}
    reference = None if labelling else ign_reference(data_args, splits, record)
    if apart and wanted in files:
        loaded = load(data_files={wanted: files[wanted]}, streaming=data_args.streaming)
        splits["train"], record["train"] = loaded[wanted], read_provenance(loaded)[wanted]
    limits = {
        "train": data_args.max_train_documents,
        "validation": data_args.max_eval_documents,
        "test": data_args.max_predict_documents,
    }
    for split, limit in limits.items():
        if limit is not None and split in splits:
            splits[split] = splits[split].take(limit)
    return splits, record, reference


def ign_reference(data_args, splits, files):
    """The facts left out for Ign F1, or None."""
    if data_args.ign_reference != "train":
        return None if data_args.ign_reference == "none" else load_ign_reference(data_args.ign_reference)
    if "train" not in splits:
        logger.info("no Ign F1: there are no training documents whose facts it could leave out, see --ign_reference")
        return None
    facts = load_ign_reference([to_document(row) for row in splits["train"]])
    return dataclasses.replace(facts, source=Path(files["train"]["source"]).name, sha256=files["train"]["sha256"])


def labels_of(model_args, data_args, splits):
    """Labels of a new model and their readable names. Where no file lists them, they are those of the documents for training and
    validation: what training does not show cannot be learned, but it counts as missed."""
    known = [splits[split] for split in ("train", "validation") if split in splits]
    files_given = data_args.data_dir or data_args.train_file or data_args.validation_file or data_args.test_file
    entry = get_dataset(data_args.dataset_config)
    return relation_labels(
        data_args.data_dir,
        itertools.chain(*known),
        rel_info=None if files_given else entry.relation_info_address,
        cache_dir=model_args.cache_dir,
        null_label=entry.null_label,
    )


def hub_arguments(model_args):
    return {"cache_dir": model_args.cache_dir, "revision": model_args.model_revision, "token": model_args.token}


def is_finished(model_args):
    """Whether the model is a COMM checkpoint, not a bare encoder."""
    config, _ = PreTrainedConfig.get_config_dict(model_args.model_name_or_path, **hub_arguments(model_args))
    return config.get("model_type") == CommConfig.model_type


def build_model(model_args, data_args, splits):
    """The model and its processor: a finished checkpoint as it is, or a new model around a bare encoder."""
    fields = {name.name for name in dataclasses.fields(ModelArguments)} & set(vars(CommConfig()))
    given = {name: getattr(model_args, name) for name in fields if getattr(model_args, name) is not None}
    own = json.loads(model_args.extension_fields or "{}")
    hub, source = hub_arguments(model_args), model_args.model_name_or_path
    if is_finished(model_args):
        return load_checkpoint(model_args, given, own, hub)
    labels, names = labels_of(model_args, data_args, splits)
    model = CommForDocumentRelationExtraction.from_backbone(
        source,
        id2label=dict(enumerate(labels)),
        relation_names={label: names[label] for label in labels if label in names},
        backbone_overrides=json.loads(model_args.backbone_overrides or "{}"),
        attn_implementation=model_args.attn_implementation,
        **given,
        **own,
        **hub,
    )
    processor = CommProcessor.from_backbone(
        source, model.config, word_leading_space=model_args.word_leading_space, **hub
    )
    return model, processor


def load_checkpoint(model_args, given, own, hub):
    """A finished checkpoint and its processor; flags can change what its weights do not depend on."""
    source = model_args.model_name_or_path
    config = CommConfig.from_pretrained(source, **hub)
    fixed = ("relation_encoder", "emb_size", "block_size", "unet_in_dim", "unet_down_dim", "unet_out_dim")
    fixed += ("axial_layers", "axial_heads", "fixed_grid")
    refused = [name for name in fixed if given.get(name) not in (None, getattr(config, name))]
    refused += ["backbone_overrides"] if model_args.backbone_overrides else []
    refused += [] if model_args.word_leading_space else ["word_leading_space"]
    if refused:
        raise ValueError(
            f"{source} is a finished checkpoint, which decides on {', '.join(refused)}; leave these flags out"
        )
    config = CommConfig.from_pretrained(source, **given, **hub)
    for name, value in own.items():
        setattr(config, name, value)
    model = CommForDocumentRelationExtraction.from_pretrained(
        source, config=config, attn_implementation=model_args.attn_implementation, **hub
    )
    processor = CommProcessor.from_pretrained(source, **hub)
    processor.update_from_config(model.config)
    return model, processor


def encode_splits(splits, processor, data_args, training_args):
    """Encodes every split once and says what encoding lost."""
    encoded, reports = {}, {}
    for split, dataset in splits.items():
        if not hasattr(dataset, "__len__"):
            encoded[split] = DocumentStream(dataset, data_args.max_length)
            continue
        with training_args.main_process_first(desc=f"encoding {split}"):
            encoded[split] = encode_dataset(
                dataset, processor, max_length=data_args.max_length, num_proc=data_args.preprocessing_num_workers
            )
        reports[split] = encoding_report(encoded[split])
        lost = what_was_lost(reports[split]) or "nothing"
        logger.info("%s: %d documents; lost in encoding: %s", split, len(dataset), lost)
    return encoded, reports


def trainer_class_of(distillation_args):
    """[`CommTrainer`], or, with a teacher's logits, what also learns from these."""
    if not distillation_args.teacher_logits:
        return CommTrainer
    return functools.partial(
        DistillationTrainer,
        teacher_logits=TeacherLogits(distillation_args.teacher_logits),
        distillation_weight=distillation_args.distillation_weight,
        distillation_raw_logits=distillation_args.distillation_raw_logits,
    )


def label(training_args, model_args, data_args, distillation_args, splits, files):
    """Stores the logits of a teacher, a finished checkpoint, for the training documents."""
    started = time.time()
    if not is_finished(model_args):
        raise ValueError(f"--do_label needs a trained teacher; {model_args.model_name_or_path} is a bare encoder")
    model, processor = build_model(model_args, data_args, splits)
    device = training_args.device
    half = torch.bfloat16 if training_args.bf16 else torch.float16
    folder, rows = distillation_args.teacher_logits, splits["train"]
    documents = label_documents(
        model.to(device),
        processor,
        map(to_document, rows),
        folder,
        batch_size=training_args.per_device_eval_batch_size,
        max_length=data_args.max_length,
        rank=training_args.process_index,
        world_size=training_args.world_size,
        autocast=lambda: torch.autocast(device.type, half, enabled=training_args.bf16 or training_args.fp16),
        total=len(rows) if hasattr(rows, "__len__") else None,
    )
    training_args.distributed_state.wait_for_everyone()
    if training_args.process_index == 0:
        record = run_record(__file__, training_args, started, model.dtype) | {
            "teacher": model_args.model_name_or_path,
            "data": {"config": data_args.dataset_config, "files": {"train": files["train"]}},
        }
        lost = what_was_lost(finish_labels(folder, documents, record)["encoding"])
        logger.info("%s: logits of %d documents; lost in encoding: %s", folder, documents, lost or "nothing")


def run(seed, output_dir, training_args, model_args, data_args, distillation_args, run_args, splits, files, reference):
    """One run with one seed: trains, evaluates, predicts, and writes what came out beside its record."""
    started = time.time()
    training_args.seed, training_args.output_dir = seed, str(output_dir)
    checkpoint, finished = None, False
    source = model_args.model_name_or_path
    if training_args.do_train:
        groups = (training_args, model_args, data_args, distillation_args, run_args)
        settings = settings_of(seed, *groups, files, reference)
        checkpoint, finished = prepare_output(training_args, output_dir, settings, run_args.restart)
    if finished:
        logger.info("%s: the training is finished; --restart would repeat it", output_dir)
        model_args = ModelArguments(str(output_dir), attn_implementation=model_args.attn_implementation)
    elif checkpoint:
        logger.info("going on from %s", checkpoint)
    set_seed(seed)
    model, processor = build_model(model_args, data_args, splits)
    if training_args.do_train and not finished:
        model.float()  # weights of half precision would lose most steps to rounding; --bf16 and --fp16 compute in it
        # An offset tuned for other weights says nothing about these.
        model.config.threshold_offset = model_args.threshold_offset or 0.0
        processor.update_from_config(model.config)
    wanted = {
        "train": training_args.do_train,
        "validation": training_args.do_train or training_args.do_eval,
        "test": training_args.do_predict,
    }
    read = {split: rows for split, rows in splits.items() if wanted[split]}
    encoded, encoding = encode_splits(read, processor, data_args, training_args)
    if training_args.do_predict:
        check_titles(encoded["test"])
    trainer = trainer_class_of(distillation_args)(
        model=model,
        args=training_args,
        train_dataset=encoded.get("train"),
        eval_dataset=encoded.get("validation"),
        processing_class=processor,
        ign_reference=reference,
        callbacks=[EarlyStoppingCallback(run_args.early_stopping_patience)]
        if run_args.early_stopping_patience
        else None,
    )
    results = {}
    if finished:
        state = TrainerState.load_from_json(Path(output_dir) / "trainer_state.json")
        for field_name in ("log_history", "best_global_step", "global_step", "epoch"):
            setattr(trainer.state, field_name, getattr(state, field_name))
        results |= next(entry for entry in reversed(state.log_history) if "train_runtime" in entry)
    elif training_args.do_train:
        results |= trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint or checkpoint).metrics
        if run_args.tune_threshold_offset:
            trainer.tune_threshold_offset()
        trainer.save_model(_internal_call=True)  # without a push: the one at the end has the record, too
        trainer.save_state()  # written last: it says that the training is finished
    if run_args.tune_threshold_offset:
        results["threshold_offset"] = model.config.threshold_offset
        logger.info("predictions need a margin of %.3f over the threshold", model.config.threshold_offset)
    if training_args.do_eval:
        results |= trainer.evaluate()
    if training_args.do_predict:
        results |= predict(trainer, encoded["test"], splits, reference, data_args, run_args, output_dir)
    if trainer.stream_report:
        reports = gather_object([dict(trainer.stream_report)])
        encoding["train"] = {key: sum(one.get(key, 0) for one in reports) for key in reports[0]}
    record = run_record(__file__, training_args, started, model.dtype) | {
        "seed": seed,
        "data": {
            "config": data_args.dataset_config,
            "files": files,
            "published": get_dataset(data_args.dataset_config).published_sources(files),
            "encoding": encoding,
        },
        "distillation": {
            "weight": distillation_args.distillation_weight,
            "raw_logits": distillation_args.distillation_raw_logits,
            "teacher": trainer.teacher_logits.settings,
        }
        if distillation_args.teacher_logits
        else None,
        "ign_reference": {"source": reference.source, "sha256": reference.sha256, "facts": len(reference.facts)}
        if reference
        else None,
        "base_model": None if Path(source).exists() else source,
        "config": model.config.to_dict(),
        "training_arguments": training_args.to_sanitized_dict(),
        "metrics": results,
        "log": epoch_log(trainer.state.log_history),
        "best_checkpoint_step": trainer.state.best_global_step,
    }
    record_file = Path(output_dir) / "run.json"
    if finished and record_file.is_file():
        record = scored_again(json.loads(record_file.read_text(encoding="utf-8")), record)
    # Scoring a finished training in its own folder leaves the training's record alone.
    scored_later = not training_args.do_train and (Path(output_dir) / "trainer_state.json").is_file()
    if trainer.is_world_process_zero():
        write_json(record_file.with_name("evaluation.json") if scored_later else record_file, record)
    trainer.run_record = read_run(output_dir)[0] if scored_later else record
    if training_args.push_to_hub:
        trainer.push_to_hub()  # with its model card
    elif training_args.do_train:
        trainer.create_model_card()
    return record["metrics"]


def scored_again(before, record):
    """The record of a finished training for which the command was given again: what made it stays, scores are added."""
    made_by = ("command", "commit", "versions", "device", "seconds")
    what = [(one["data"]["files"], one["ign_reference"]) for one in (before, json.loads(json.dumps(record)))]
    return {
        **record,
        **{key: before[key] for key in made_by},
        "metrics": (before["metrics"] if what[0] == what[1] else {}) | record["metrics"],
        "scored_by": {key: record[key] for key in made_by},
    }


def predict(trainer, encoded, splits, reference, data_args, run_args, output_dir):
    """Predictions on the test split in the official format; with labels also scores, beside the type prior's."""
    output = trainer.predict(encoded)
    processor = trainer.processing_class
    documents = [to_document(row) for row in splits["test"]]
    predictions = official_predictions(output.predictions, documents, processor.id2label)
    metrics = dict(output.metrics)
    if "train" in splits and not hasattr(splits["train"], "__len__"):
        logger.info("no type prior: it would need all training documents, which are streamed, in memory")
    if not trainer.is_world_process_zero():
        return metrics
    write_json(Path(output_dir) / "results.json", predictions)
    labelled = sum("labels" in document for document in documents)
    logger.info(
        "%s of %s test documents have labels%s",
        labelled,
        len(documents),
        "" if labelled == len(documents) else ": no scores",
    )
    if labelled == len(documents):
        frequent = get_dataset(data_args.dataset_config).frequent_relations
        scores = score(predictions, documents, ign_reference=reference, frequent_relations=frequent)
        prior = None
        if hasattr(splits.get("train"), "__len__"):
            type_prior = TypePrior([to_document(row) for row in splits["train"]])
            cutoff, _ = type_prior.best_cutoff(documents)
            floor = type_prior.predict(documents, cutoff)
            prior = score(floor, documents, ign_reference=reference, frequent_relations=frequent)
            metrics["test_type_prior_f1"] = prior["f1"]
        print("\n" + format_scores(scores, baseline=prior, baseline_name="type prior") + "\n")
        write_json(Path(output_dir) / "test_scores.json", {"scores": scores, "type_prior": prior})
    show_triples(output.predictions, documents, processor, run_args.show_triples)
    return metrics


def show_triples(results, documents, processor, number):
    """Prints `number` predicted triples in words, the surest of each document in turn, right or wrong."""
    by_document = [sorted(result.triples, key=lambda triple: -triple.margin) for result in results]
    in_turn = [(rank, index) for index, triples in enumerate(by_document) for rank in range(len(triples))]
    for rank, index in sorted(in_turn)[:number]:
        head, tail, label, margin = by_document[index][rank]
        document, relation = documents[index], processor.id2label[label]
        gold = {(fact["h"], fact["t"], fact["r"]) for fact in document.get("labels", [])}
        judged = "" if "labels" not in document else "  right" if (head, tail, relation) in gold else "  WRONG"
        name = processor.relation_names.get(relation, relation)
        print(
            f"{document['title']}: {entity_name(document, head)} -- {name} -> {entity_name(document, tail)} "
            f"(margin {margin:.2f}){judged}"
        )


def describe(splits, model_args, data_args, training_args):
    """What is in the data and, where a model is named, what its tokenizer would drop."""
    encoding = None
    if model_args.model_name_or_path:
        _, processor = build_model(model_args, data_args, splits)
        _, encoding = encode_splits(splits, processor, data_args, training_args)
    described = {split: describe_documents([to_document(row) for row in rows]) for split, rows in splits.items()}
    known = any(stats["relations"] for stats in described.values())
    _, names = labels_of(model_args, data_args, splits) if known else (None, None)
    published = get_dataset(data_args.dataset_config).published_statistics
    print(format_description(described, encoding, names, published))


def main(argv=None):
    model_args, data_args, training_args, distillation_args, run_args = parse_arguments(
        sys.argv[1:] if argv is None else list(argv), __doc__
    )
    import_extensions(model_args.extensions)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    level = training_args.get_process_log_level()
    says_more = training_args.log_level == "passive" and training_args.process_index == 0
    logger.setLevel(logging.INFO if says_more else level)
    datasets.utils.logging.set_verbosity(logging.WARNING)
    transformers.utils.logging.set_verbosity(level)
    does = [name for name in ("do_train", "do_eval", "do_predict") if getattr(training_args, name)]
    if not (does or distillation_args.do_label or data_args.describe_data):
        raise ValueError("nothing to do: give one of --do_train, --do_eval, --do_predict, --do_label, --describe_data")
    if distillation_args.do_label and (does or not distillation_args.teacher_logits):
        found = ", ".join(f"--{name}" for name in does) or "no --teacher_logits"
        raise ValueError(f"--do_label is a call of its own, which writes to --teacher_logits; found {found}")
    if distillation_args.teacher_logits and not (distillation_args.do_label or training_args.do_train):
        raise ValueError("--teacher_logits without --do_train or --do_label would not be used")
    if not distillation_args.teacher_logits and distillation_args != DistillationArguments():
        raise ValueError("--distillation_weight and --distillation_raw_logits need --teacher_logits")
    if not data_args.describe_data and not model_args.model_name_or_path:
        raise ValueError("--model_name_or_path is missing: a bare encoder or a COMM checkpoint")
    if run_args.tune_threshold_offset and not training_args.do_train:
        raise ValueError("--tune_threshold_offset is done after a training; found no --do_train")
    seeds = run_args.seeds or [training_args.seed]
    if training_args.push_to_hub and len(seeds) > 1:
        raise ValueError(
            f"--push_to_hub with --seeds {' '.join(map(str, seeds))}: each run would overwrite the one before; push the run of "
            "one --seed"
        )
    logger.info("world size %d, device %s", training_args.world_size, training_args.device)
    splits, files, reference = load_documents(data_args, model_args, distillation_args.do_label)
    if data_args.describe_data:
        describe(splits, model_args, data_args, training_args)
        return None
    asked = {**vars(training_args), **vars(distillation_args), **vars(run_args)}
    needs = {"do_train": "train", "do_label": "train", "do_eval": "validation", "do_predict": "test"}
    needs["tune_threshold_offset"] = "validation"
    for wanted, split in needs.items():
        if asked[wanted] and split not in splits:
            raise ValueError(
                f"--{wanted} needs a {split} split; found {sorted(splits)} in {[entry['source'] for entry in files.values()]}"
            )
    if distillation_args.do_label:
        label(training_args, model_args, data_args, distillation_args, splits, files)
        return None
    if "validation" not in splits or not (training_args.do_train or training_args.do_eval):
        if training_args.do_train:
            logger.warning("no validation documents: the last checkpoint is kept, not the best one")
        training_args.eval_strategy, training_args.load_best_model_at_end = "no", False
    output = Path(training_args.output_dir)
    arguments = (training_args, model_args, data_args, distillation_args, run_args)
    by_seed = []
    for seed in seeds:
        folder = output / f"seed-{seed}" if len(seeds) > 1 else output
        by_seed.append(run(seed, folder, *arguments, splits, files, reference))
    if len(seeds) > 1 and training_args.process_index == 0:
        summary = {"seeds": seeds, "metrics": summarize(by_seed)}
        write_json(output / "summary.json", summary)
        write_model_card(output)
        for key in ("eval_f1", "test_f1", "test_ign_f1"):
            if key in summary["metrics"]:
                found = summary["metrics"][key]
                print(f"{key}: {100 * found['mean']:.2f} +- {100 * found['std']:.2f} over seeds {seeds}")
    return by_seed


if __name__ == "__main__":
    main()
