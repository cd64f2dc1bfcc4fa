"""Text classification: a language model, pre-trained or not, learns to tell classes apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multiclass_f1_score,
)

from fusewire.data.labelled import Labelled, load_known, load_labelled
from fusewire.data.tokenizers import Tokenizer, TokenizerKind, tokenizer_of_texts
from fusewire.errors import InputError
from fusewire.models.language import (
    Bag,
    BagConfig,
    Classifier,
    ClassifierConfig,
    Encoder,
    Recurrent,
    RecurrentConfig,
    Transformer,
    TransformerConfig,
    add_lora,
    weights_below_lora,
)
from fusewire.training.devices import memory_refusals
from fusewire.training.durable import replace_file_or_refuse
from fusewire.training.order import ShuffledOrder
from fusewire.training.plots import plot_matrix
from fusewire.training.processes import Processes
from fusewire.training.run_directory import RunDirectory
from fusewire.training.sequence.config import TrainingConfig, require_one_beginning
from fusewire.training.sequence.learner import SequenceLearner
from fusewire.training.sequence.pretrained import embed_with, open_pretrained, tokenizer_for
from fusewire.training.sequence.runs import Begun, Kind, Material, ScheduledTask, Vocabulary
from fusewire.training.session import Appearance
from fusewire.training.settings import require_between, require_counts

KIND = "classifier"
"""The kind of run directory that this training fills."""

Tuning: TypeAlias = Literal["full", "frozen", "gradual", "lora"]

_MEASURED_AT_A_TIME = 64


@dataclass(frozen=True, kw_only=True)
class ClassifierRunConfig(TrainingConfig):
    """Everything that decides a run.

    Attributes:
        model: sizes of what reads; those of ``start``, where it is given.
        reads: a Transformer's direction: ``"encoder"`` sees the whole text at once.
        data: texts with labels, see `fusewire.data.labelled.load_labelled`.
        start: a pre-trained run to go on from, with its tokenizer; ``None`` starts afresh.
        embedding: word vectors that the embedding starts from; not with ``start``.
        tokenizer: what a token is, without ``start``.
        vocab_size: most tokens of a tokenizer that is learnt from the texts.
        most_tokens: longer texts are cut off.
        packed: whether texts are read one behind another, without padding.
        pooling: which states of a text are classified.
        dropout: before the classes.
        tuning: what learns: everything, the head alone, everything from the head down to the
            embedding one layer after another, or the head and low-rank corrections.
        unfreeze_every: steps between layers, for gradual tuning.
        shrinking: learning rate of a layer as a fraction of that of the layer above.
        balanced: whether rare classes weigh as much as frequent ones.
        validation: part of the texts to measure on.
        labels: part of the other texts to learn from.
    """

    # A bag first: what a file says of it fits no other, and what it says of others no bag.
    model: BagConfig | TransformerConfig | RecurrentConfig
    data: Path
    reads: Literal["encoder", "decoder"] = "encoder"
    start: Path | None = None
    embedding: Path | None = None
    tokenizer: TokenizerKind = "bytes"
    vocab_size: int = 8192
    most_tokens: int = 128
    packed: bool = False
    pooling: Literal["last", "mean", "cls"] = "mean"
    dropout: float = 0.1
    tuning: Tuning = "full"
    unfreeze_every: int = 100
    shrinking: float = 1.0
    balanced: bool = False
    validation: float = 0.1
    labels: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_beginning(self.start, self.embedding)
        require_counts(
            vocab_size=self.vocab_size,
            most_tokens=self.most_tokens,
            unfreeze_every=self.unfreeze_every,
        )
        require_between(0.001, 1, shrinking=self.shrinking, labels=self.labels)
        require_between(0.001, 0.9, validation=self.validation)
        if isinstance(self.model, BagConfig) and self.tuning == "lora":
            raise InputError("tuning must be full, frozen or gradual for a bag of words")
        if isinstance(self.model, TransformerConfig) and self.most_tokens > self.model.context:
            raise InputError(
                f"most_tokens must be at most the model's context, {self.model.context}, "
                f"got {self.most_tokens}"
            )


@dataclass(frozen=True)
class TextPart:
    """Texts that a process reads at once.

    Attributes:
        tokens: token ids, (rows, seq_len) or packed (tokens).
        lengths: of the texts, (rows).
        labels: places in the classes, (rows).
        weight: that of the whole batch's texts, as much as falls to a part of this size: parts may
            weigh more or less, and each text shall count alike.
    """

    tokens: Tensor
    lengths: Tensor
    labels: Tensor
    weight: float


class ClassifierTask(ScheduledTask):
    """To name the class of a text.

    Args:
        config: the run.
        data: texts with labels.
        tokenizer: of the texts.
        processes: decide the device, and who writes.
    """

    def __init__(
        self,
        config: ClassifierRunConfig,
        data: Labelled,
        tokenizer: Tokenizer,
        processes: Processes,
    ) -> None:
        super().__init__(config, processes)
        self._config, self._classes = config, data.classes
        self._train = encode(data.train, tokenizer, config.most_tokens)
        self._measured = encode(data.validation, tokenizer, config.most_tokens)
        self._order = ShuffledOrder(len(self._train), config.batch, config.seed)
        counts = np.bincount([label for _, label in data.train], minlength=len(data.classes))
        balanced = counts.sum() / np.maximum(counts, 1) / len(counts)
        self._weight_of: list[float] = (balanced if config.balanced else counts * 0 + 1.0).tolist()
        self._weights = torch.tensor(self._weight_of, device=processes.device)

    def batch(self, step: int, rows: slice) -> TextPart:
        """Texts, their lengths, and their labels."""
        whole = [self._train[place] for place in self._order.batch(step)]
        part = whole[rows]
        weight = sum(self._weight_of[label] for _, label in whole) * len(part) / len(whole)
        return TextPart(*collate(part, self.processes.device, packed=self._config.packed), weight)

    def loss(
        self, model: nn.Module, batch: TextPart, carried: None
    ) -> tuple[Tensor, dict[str, Tensor], None]:
        """Nats per text, and the part that is right."""
        logits = model(batch.tokens, batch.lengths)
        right = (logits.argmax(-1) == batch.labels).float().mean()
        summed = cross_entropy(logits, batch.labels, self._weights, reduction="sum")
        return summed / batch.weight, {"accuracy": right}, carried

    def before_step(self, step: int, learner: SequenceLearner) -> dict[str, float]:
        """Sets each layer's learning rate: 0 while it is frozen."""
        logged = super().before_step(step, learner)
        if self._config.tuning == "gradual":
            free = 1 + (step - 1) // self._config.unfreeze_every
            for group in learner.optimizer.param_groups:
                if group["depth"] >= free:
                    group["lr"] = 0.0
        return logged

    def validate(self, model: Classifier) -> dict[str, float]:
        """Measures loss, accuracy, macro-F1 and the calibration error."""
        measured = _measure(model, self._measured, self.processes.device)
        measured.pop("confusion")
        return {f"validation_{name}": value for name, value in measured.items()}

    def finish(self, model: Classifier, run: RunDirectory) -> dict[str, Path]:
        """Writes evaluation.json and the confusion matrix as a picture."""
        measured = _measure(model, self._measured, self.processes.device)
        made = {"evaluation": run.path / "evaluation.json", "confusion": run.path / "confusion.png"}

        def show() -> None:
            content = json.dumps({"classes": self._classes, **measured}, indent=1)
            replace_file_or_refuse(made["evaluation"], content.encode())
            title = "Texts by their class (rows) and what they were taken for"
            confusion = np.array(measured["confusion"])
            plot_matrix(confusion, self._classes, self._classes, made["confusion"], title=title)

        self.processes.by_main(show)
        return made


Text: TypeAlias = tuple[Tensor, int]
"""Token ids of a text, and its label."""


def encode(texts: Sequence[tuple[str, int]], tokenizer: Tokenizer, most_tokens: int) -> list[Text]:
    """Texts as token ids, at most so many; an empty one becomes a single token 0."""
    encoded = []
    for text, label in texts:
        ids = tokenizer.encode(text)[:most_tokens].astype(np.int64)
        encoded.append((torch.from_numpy(ids if len(ids) else np.zeros(1, np.int64)), label))
    return encoded


def collate(
    texts: Sequence[Text], device: torch.device, *, packed: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Texts, their lengths, and their labels.

    Texts are padded at their ends (batch, seq_len), or packed one behind another (tokens).
    """
    rows = [ids for ids, _ in texts]
    tokens = torch.cat(rows) if packed else pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(ids) for ids, _ in texts])
    labels = torch.tensor([label for _, label in texts])
    return tokens.to(device), lengths.to(device), labels.to(device)


@torch.no_grad()
def predict(
    model: Classifier, texts: Sequence[Text], device: torch.device, batch: int
) -> tuple[Tensor, Tensor]:
    """Logits (texts, classes) and labels (texts), in the order of the texts."""
    was_training = model.training
    model.eval()
    logits, labels = [], []
    for first in range(0, len(texts), batch):
        tokens, lengths, right = collate(texts[first : first + batch], device)
        logits.append(model(tokens, lengths))
        labels.append(right)
    model.train(was_training)
    return torch.cat(logits), torch.cat(labels)


def _measure(
    model: Classifier,
    texts: Sequence[Text],
    device: torch.device,
    batch: int = _MEASURED_AT_A_TIME,
) -> dict[str, Any]:
    logits, labels = predict(model, texts, device, batch)
    classes, probabilities = logits.shape[1], logits.softmax(-1)
    return {
        "loss": cross_entropy(logits, labels).item(),
        "accuracy": multiclass_accuracy(logits, labels, classes, average="micro").item(),
        "macro_f1": multiclass_f1_score(logits, labels, classes, average="macro").item(),
        "calibration_error": multiclass_calibration_error(probabilities, labels, classes).item(),
        "confusion": multiclass_confusion_matrix(logits, labels, classes).tolist(),
    }


@memory_refusals()
def evaluate(
    path: Path, data: Path | None = None, batch: int = _MEASURED_AT_A_TIME
) -> dict[str, Any]:
    """Measures a trained classifier.

    Args:
        path: the run directory.
        data: texts with labels, all of which are measured; ``None`` means those kept back.
        batch: texts at a time, which does not change the result.

    Returns:
        ``loss``, ``accuracy``, ``macro_f1``, ``calibration_error`` and ``confusion``.

    Raises:
        InputError: the path is no run of a classifier, or the data have other classes.
    """
    config, model, vocabulary = TRAINING.open(path)
    if data is None:
        found = load_labelled(config.data, config.validation)
        RunDirectory.open(path).require_same_data(found.fingerprint)
        texts = found.validation
    else:
        texts = load_known(data, vocabulary.classes)
    encoded = encode(texts, vocabulary.tokenizer, config.most_tokens)
    return _measure(model, encoded, torch.device("cpu"), batch)


def _load(config: ClassifierRunConfig, begun: Begun | None = None) -> Material[ClassifierRunConfig]:
    data = load_labelled(config.data, config.validation, config.labels)
    wanted = tokenizer_for(begun, config.start, config.tokenizer)
    # Of all texts, however few have labels: words without a label are words nevertheless.
    tokenizer = tokenizer_of_texts(wanted, data.texts, config.vocab_size)

    def task(config: ClassifierRunConfig, processes: Processes) -> ClassifierTask:
        return ClassifierTask(config, data, tokenizer, processes)

    return Material(Vocabulary(tokenizer, data.classes), data.fingerprint, task)


def _build(config: ClassifierRunConfig, vocabulary: Vocabulary) -> Classifier:
    vocab_size = vocabulary.tokenizer.vocab_size
    reader: Transformer | Encoder | Recurrent | Bag
    if isinstance(config.model, BagConfig):
        reader = Bag(config.model, vocab_size)
    elif isinstance(config.model, RecurrentConfig):
        reader = Recurrent(config.model, vocab_size)
    elif config.reads == "encoder":
        reader = Encoder(config.model, vocab_size + 1)  # and the mask of its pre-training
    else:
        reader = Transformer(config.model, vocab_size)
    head = ClassifierConfig(len(vocabulary.classes), config.pooling, config.dropout)
    model = Classifier(reader, head)
    if config.tuning == "frozen":
        model.reader.requires_grad_(False)
    if config.tuning == "lora":
        add_lora(model.reader)
    return model


def _begin(config: ClassifierRunConfig, model: Classifier, vocabulary: Vocabulary) -> None:
    if config.start is not None:
        _, found, _ = open_pretrained(config.start)
        ours = weights_below_lora(model.reader)
        theirs = found.state_dict()
        if not theirs.keys() <= ours.keys() or any(
            ours[name].shape != weight.shape for name, weight in theirs.items()
        ):
            raise InputError(f"{config.start} holds a model of another kind or of other sizes")
        for name, weight in theirs.items():
            ours[name].copy_(weight)
    if config.embedding is not None:
        embed_with(config.embedding, model.reader.embedding, vocabulary.tokenizer)


def _groups(config: ClassifierRunConfig, model: Classifier) -> list[dict[str, object]]:
    """Groups by depth, that of the head first."""
    if config.tuning in ("frozen", "lora"):
        learning = [weight for weight in model.parameters() if weight.requires_grad]
        return [{"params": learning, "weight_decay": 0.0, "scale": 1.0, "depth": 0}]
    groups: list[dict[str, object]] = []
    for depth, layer in enumerate(model.depths()):
        scale = config.shrinking**depth
        for decays in (True, False):  # matrices decay, other parameters do not
            part = [weight for weight in layer if (weight.dim() >= 2) == decays]
            decay = config.weight_decay if decays else 0.0
            groups.append({"params": part, "weight_decay": decay, "scale": scale, "depth": depth})
    return groups


def _appearance(config: ClassifierRunConfig) -> Appearance:
    return Appearance(
        label="Classifier",
        title="Classifier: nats per text",
        curves={"loss": "training", "validation_loss": "validation"},
        unit="texts",
        per_step=config.batch,
    )


TRAINING: Kind[ClassifierRunConfig] = Kind(
    KIND, ClassifierRunConfig, _load, _build, _begin, _appearance, _groups
)
train, resume = TRAINING.train, TRAINING.resume
