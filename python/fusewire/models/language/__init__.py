"""Language models: causal, masked, and encoder-decoder; recurrent networks and Transformers.

Causal models have the same face: ``logits, state = model(tokens, state)``. The state is what the
model remembers of earlier tokens: keys and values in a Transformer, hidden states in a recurrent
network. An encoder-decoder shows that face once it has read its sources (``model.conditioned``).
"""

from fusewire.models.language.bag import Bag, BagConfig
from fusewire.models.language.beam import beam_search
from fusewire.models.language.classifier import Classifier, ClassifierConfig
from fusewire.models.language.encoder import Encoder
from fusewire.models.language.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from fusewire.models.language.generate import generate, stream
from fusewire.models.language.huggingface import from_huggingface, load_huggingface
from fusewire.models.language.layout import KeyValueCache
from fusewire.models.language.lora import add_lora, merge_lora, weights_below_lora
from fusewire.models.language.recurrent import Recurrent, RecurrentConfig
from fusewire.models.language.recurrent_encoder_decoder import (
    RecurrentEncoderDecoder,
    RecurrentEncoderDecoderConfig,
)
from fusewire.models.language.recurrent_layers import RecurrentState, unbounded_weights
from fusewire.models.language.sampling import Sampling
from fusewire.models.language.subwords import Subwords
from fusewire.models.language.transformer import Transformer
from fusewire.models.language.transformer_config import (
    RotaryScaling,
    TransformerConfig,
    YarnScaling,
)
from fusewire.models.language.word_vectors import WordVectors

__all__ = [
    "Bag",
    "BagConfig",
    "Classifier",
    "ClassifierConfig",
    "Encoder",
    "EncoderDecoder",
    "EncoderDecoderConfig",
    "KeyValueCache",
    "Recurrent",
    "RecurrentConfig",
    "RecurrentEncoderDecoder",
    "RecurrentEncoderDecoderConfig",
    "RecurrentState",
    "RotaryScaling",
    "Sampling",
    "Subwords",
    "Transformer",
    "TransformerConfig",
    "WordVectors",
    "YarnScaling",
    "add_lora",
    "beam_search",
    "from_huggingface",
    "generate",
    "load_huggingface",
    "merge_lora",
    "stream",
    "unbounded_weights",
    "weights_below_lora",
]
