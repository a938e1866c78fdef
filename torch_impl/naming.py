"""torch's names of weights, and what torch's standard layers cannot be.

The core's names are those of `torch.nn.RNN`, and `bias_l{k}` for the single bias, which it does not have.
"""

from ..spec.encoder_decoder import AnySpec, EncoderDecoderSpec
from ..spec.parameters import parameters

CORE_NAMES = {
    "input_weight": "weight_ih",
    "recurrent_weight": "weight_hh",
    "bias": "bias",
    "input_bias": "bias_ih",
    "recurrent_bias": "bias_hh",
}
DIRECTION_SUFFIXES = {"forward": "", "backward": "_reverse"}
CORES = ("core.", "rnn.")  # in a SequenceModel, and in a whole model of standard layers
OWN_LAYOUT = "write the layout of this package, which has it"


def state_dict_names(spec: AnySpec, core_prefix: str | None = None) -> dict[str, str]:
    """The name in the state dict for each canonical name, in canonical order.

    The core's names have the prefix `core.` in a `SequenceModel`, none in a `Recurrent`; None: as `build` decides.
    """
    if isinstance(spec, EncoderDecoderSpec):
        tables = {side: state_dict_names(part, CORES[0]) for side, part in spec.sides.items()}
        return {f"{side}.{name}": f"{side}.{own}" for side, table in tables.items() for name, own in table.items()}
    prefix = ("" if spec.is_core else CORES[0]) if core_prefix is None else core_prefix
    return {parameter.name: _state_dict_name(parameter.name, prefix) for parameter in parameters(spec)}


def plain_names(spec: AnySpec) -> dict[str, str]:
    """The same for standard layers: `torch.nn.RNN` alone, or as `rnn` beside `embedding` and `head`."""
    return state_dict_names(spec, "" if spec.is_core else CORES[1])


def _state_dict_name(name: str, prefix: str) -> str:
    if not name.startswith("layers."):
        return name  # embedding, context and head are modules of these names
    _, layer, direction, part = name.split(".")
    return f"{prefix}{CORE_NAMES.get(part, part)}_l{layer}{DIRECTION_SUFFIXES[direction]}"


def not_standard(spec: AnySpec) -> str | None:
    """Why standard layers of torch cannot be the model, or None; a single bias may be the first of their two."""
    reason = None
    if isinstance(spec, EncoderDecoderSpec):
        reason = "torch has no encoder and decoder in one layer"
    elif spec.cell != "rnn":
        reason = f"torch.nn.RNN has the cell rnn, not {spec.cell}"
    elif spec.nonlinearity not in ("tanh", "relu"):
        reason = f"torch.nn.RNN has tanh and relu, not {spec.nonlinearity}"
    elif spec.merge != "concat":
        reason = f"torch.nn.RNN concatenates its directions, it has no {spec.merge}"
    elif spec.context:
        reason = "torch.nn.RNN has no context"
    return reason and f"{reason}; {OWN_LAYOUT}"
