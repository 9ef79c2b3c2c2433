"""Exports the encoder under training to an ONNX file that a running pipeline picks up.

``export_model(model, path)`` takes a ``SentenceTransformer``, a backbone of torchvision, or any ``torch.nn.Module``
with example inputs. The file's inputs are named, its batch axis is free, and its one output, ``sentence_embedding``
[batch, dimension], is pooled and of unit length. The export is checked against torch on a batch of another size. Then
one rename replaces the old file, so that whoever watches ``path`` sees the old model or the new one, whole.
"""

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import torch

from .errors import ExportError
from .fuse import forms

logger = logging.getLogger(__name__)

OUTPUT = "sentence_embedding"


def export_model(
    model: torch.nn.Module,
    path: str | os.PathLike[str],
    inputs: Mapping[str, torch.Tensor] | None = None,
    *,
    dynamic_axes: Mapping[str, Sequence[int]] | None = None,
    image_size: tuple[int, int, int] = (3, 224, 224),
    normalize: bool = True,
    fp16: bool = False,
    fuse: bool = True,
    tolerance: float | None = None,
) -> Path:
    """Exports a model, checks the export, and puts it in the place of ``path``.

    Args:
        model: a ``SentenceTransformer`` (its tokenizer goes beside the file as ``tokenizer.json``); a backbone of
            torchvision (its classifier is left out, its input is ``pixel_values``); or any other module, with
            ``inputs``. Its device, training mode and gradients stay as they were.
        path: the file; its folder is made if missing.
        inputs: for other modules: examples by input name, each [batch, …] with at least two rows, in the order of
            ``forward``'s arguments. The module returns [batch, dimension], [batch, sequence, dimension] (pooled by
            the mean over the tokens of the ``attention_mask`` if there is one, else over all) or [batch, channels,
            height, width] (pooled by the mean over the picture).
        dynamic_axes: for other modules: axes that are free besides the first, by input name.
        image_size: for backbones: channels, height and width of a picture.
        normalize: whether vectors are scaled to unit length.
        fp16: whether weights and inner values are 16-bit numbers; inputs and outputs stay as they are. Half the size;
            on a CPU slower, on a GPU faster.
        fuse: whether attention, normalisation and activation become operators of ONNX Runtime's own where they can:
            faster on a GPU. An ``attention_mask`` may then hide only the end of a row, which is where pipelines pad;
            if it hides something else, the row's vector is NaN. Without ``fuse`` the file has only operators of the
            ONNX standard, and any mask works.
        tolerance: how far a number of the export may lie from torch's; default 1e-4, with ``fp16`` 1e-2.

    Returns:
        ``path``.

    Raises:
        ExportError: torch cannot export the module, or the export gives other vectors; ``path`` stays as it was.
    """
    wrapped, examples, free = _wrap(model, inputs, dynamic_axes or {}, image_size, normalize)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, or the rename would not be atomic.
    with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
        incoming = Path(folder, "model.onnx")
        with _ready(model, wrapped):
            tolerance = tolerance if tolerance is not None else 1e-2 if fp16 else 1e-4
            program = _to_onnx(wrapped, examples, free)
            for form in forms(program) if fuse else [program]:
                try:
                    _save(form, incoming)
                    if fp16:
                        if form is not program:
                            # In 16 bits too much would pass for rounding.
                            _check(wrapped, examples, incoming, 1e-4)
                        _to_fp16(incoming)
                    _check(wrapped, examples, incoming, tolerance)
                except ExportError as error:
                    if form is program:
                        raise
                    logger.info("the export is fused less: %s", error)
                else:
                    break
        if hasattr(model, "tokenizer"):
            _save_tokenizer(model.tokenizer, Path(folder), path.parent)
        os.replace(incoming, path)
    return path


class _Pooled(torch.nn.Module):
    """A module whose output is one vector a row, under one name."""

    def __init__(self, module: torch.nn.Module, names: Sequence[str], normalize: bool) -> None:
        super().__init__()
        self.module, self.names, self.normalize = module, list(names), normalize

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        found = self.call(dict(zip(self.names, inputs, strict=True)))
        mask = inputs[self.names.index("attention_mask")] if "attention_mask" in self.names else None
        if found.dim() == 3 and mask is not None:
            weights = mask.unsqueeze(-1).to(found.dtype)
            found = (found * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        elif found.dim() > 2:
            axes = (1,) if found.dim() == 3 else tuple(range(2, found.dim()))
            found = found.mean(axes)
        return torch.nn.functional.normalize(found, dim=-1) if self.normalize else found

    def call(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        found = self.module(*inputs.values())
        if isinstance(found, torch.Tensor):
            return found
        if isinstance(found, (tuple, list)):
            return found[0]  # type: ignore[no-any-return]
        # What Hugging Face's models give.
        return found["last_hidden_state"]  # type: ignore[no-any-return]


class _SentenceTransformer(_Pooled):
    def call(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.module(inputs)["sentence_embedding"]  # type: ignore[no-any-return]


def _wrap(
    model: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor] | None,
    dynamic_axes: Mapping[str, Sequence[int]],
    image_size: tuple[int, int, int],
    normalize: bool,
) -> tuple[_Pooled, dict[str, torch.Tensor], dict[str, tuple[int, ...]]]:
    """Returns the module to export, example inputs, and their free axes."""
    if inputs is None and _is_sentence_transformer(model):
        texts = ["a text of some words, to try the model with", "another one"]
        features: Mapping[str, Any] = model.preprocess(texts) if hasattr(model, "preprocess") else model.tokenize(texts)  # type: ignore[operator]
        named = ("input_ids", "attention_mask", "token_type_ids")
        examples = {name: features[name] for name in named if isinstance(features.get(name), torch.Tensor)}
        return _SentenceTransformer(model, list(examples), normalize), examples, dict.fromkeys(examples, (0, 1))
    if inputs is None and type(model).__module__.startswith("torchvision."):
        examples = {"pixel_values": torch.rand(2, *image_size)}
        return _Pooled(_without_head(model), list(examples), normalize), examples, {"pixel_values": (0,)}
    if not inputs:
        raise ExportError(f"a {type(model).__name__} needs examples to be exported; give inputs={{name: tensor}}")
    examples = dict(inputs)
    for name, tensor in examples.items():
        if tensor.dim() == 0 or tensor.shape[0] < 2:
            raise ExportError(f"input `{name}` has the shape {tuple(tensor.shape)}; give at least two rows")
    free = {name: (0, *dynamic_axes.get(name, ())) for name in examples}
    return _Pooled(model, list(examples), normalize), examples, free


def _is_sentence_transformer(model: torch.nn.Module) -> bool:
    return any(base.__name__ == "SentenceTransformer" for base in type(model).__mro__)


def _without_head(model: torch.nn.Module) -> torch.nn.Module:
    """Returns a copy without its classifier; its other modules are the same."""
    bare = object.__new__(type(model))
    bare.__dict__ = dict(model.__dict__)
    bare._modules = dict(model._modules)
    for name in ("fc", "classifier", "heads", "head"):
        if name in bare._modules:
            bare._modules[name] = torch.nn.Identity()
            return bare
    raise ExportError(f"a {type(model).__name__} has no classifier that is known; give inputs= and a module without it")


@contextmanager
def _ready(model: torch.nn.Module, wrapped: torch.nn.Module) -> Iterator[None]:
    """Puts a module into evaluation mode, without gradients, on the CPU, and back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    wrapped.eval()
    if device.type != "cpu":
        model.to("cpu")
    try:
        with torch.no_grad():
            yield
    finally:
        if device.type != "cpu":
            model.to(device)
        for module, training in modes:
            module.training = training


def _to_onnx(wrapped: torch.nn.Module, examples: Mapping[str, torch.Tensor], free: Mapping[str, Sequence[int]]) -> Any:
    shapes = {
        name: {axis: torch.export.Dim("batch") if axis == 0 else torch.export.Dim.DYNAMIC for axis in axes}
        for name, axes in free.items()
    }
    arguments = tuple(examples[name] for name in examples)
    try:
        with _quiet():
            program = torch.onnx.export(
                wrapped,
                arguments,
                input_names=list(examples),
                output_names=[OUTPUT],
                dynamic_shapes=(tuple(shapes.values()),),
                external_data=False,
                dynamo=True,
                verbose=False,
            )
            if program is None:
                raise ExportError("torch gave no ONNX program")
            return program.model
    except Exception as error:
        name = type(wrapped.module).__name__
        raise ExportError(f"torch cannot export {name} to ONNX: {error}; see torch.onnx.export") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _save(model: Any, path: Path) -> None:
    try:
        onnx_ir.save(model, path)
    except Exception as error:
        raise ExportError(f"the ONNX model cannot be saved: {error}") from error


def _to_fp16(path: Path) -> None:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    try:
        onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), path)
    except Exception as error:
        raise ExportError(f"the ONNX model cannot be brought to 16 bits: {error}; leave fp16 out") from error


def _check(wrapped: _Pooled, examples: Mapping[str, torch.Tensor], path: Path, tolerance: float) -> None:
    """Compares the file with torch, on the examples and on one row more."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        # It crashes over some models in 16 bits.
        broken = ["FuseFp16InitializerToFp32NodeTransformer"]
        session = onnxruntime.InferenceSession(
            os.fspath(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=broken
        )
        longer = {name: torch.cat([tensor, tensor[:1]]) for name, tensor in examples.items()}
        mask = longer.get("attention_mask")
        if mask is not None and mask.dim() == 2 and mask[-1, : mask.shape[1] // 2].any():
            mask[-1, mask.shape[1] // 2 :] = 0
        for batch in (examples, longer):
            expected = wrapped(*batch.values()).float().numpy()
            if not np.isfinite(expected).all():
                name = type(wrapped.module).__name__
                raise ExportError(f"{name} gives vectors that are not finite; see whether the training has diverged")
            # An input that the output does not depend on is not in the file.
            declared = {declared.name for declared in session.get_inputs()}
            fed = {name: tensor.numpy() for name, tensor in batch.items() if name in declared}
            (found,) = session.run([OUTPUT], fed)
            if found.shape != expected.shape:
                raise ExportError(f"the export gives the shape {found.shape} where torch gives {expected.shape}")
            apart = float(np.abs(found.astype(np.float32) - expected).max())
            if not apart <= tolerance:
                raise ExportError(
                    f"the export gives vectors {apart:.2g} from torch's, more than the tolerance {tolerance:g}; look "
                    "for what the module does differently in evaluation mode, or raise the tolerance"
                )
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(f"ONNX Runtime does not run the export: {error}") from error


def _save_tokenizer(tokenizer: Any, scratch: Path, folder: Path) -> None:
    """Puts ``tokenizer.json`` beside the model, unless the same text is there already."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ExportError(
            f"a {type(tokenizer).__name__} has no `tokenizer.json`; load it with AutoTokenizer and use_fast=True"
        )
    backend.save(os.fspath(scratch / "tokenizer.json"))
    there = folder / "tokenizer.json"
    if not there.exists() or there.read_bytes() != (scratch / "tokenizer.json").read_bytes():
        shutil.move(scratch / "tokenizer.json", there)
