"""Commands for quantization: quant-profile."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from axoc.commands.common import user_errors


@click.command("quant-profile")
@click.option("--model", help="A model's folder or a hub id.  [default: that of --spec]")
@click.option("--spec", type=click.Path(path_type=Path), help="Take the model and the held-out text from this spec.")
@click.option(
    "--quant-methods",
    metavar="A,B,...",
    default="awq,gptq,gguf,nf4,fp8,int8",
    show_default=True,
    help="Also fp4, llm_int8, and any format:quantization of `axoc export`, e.g. gguf:q8_0.",
)
@click.option("--gpu-count", type=click.IntRange(0), default=1, show_default=True, help="0, or no GPU here: the CPU.")
@click.option("--output-dir", type=click.Path(path_type=Path), required=True, help="The same folder again goes on.")
@click.option("--data", type=click.Path(path_type=Path), help="Text or JSON rows.  [default: Python's own manual]")
@click.option("--windows", type=click.IntRange(4), default=32, show_default=True, help="Of held-out text.")
@click.option("--window-tokens", type=click.IntRange(8), default=256, show_default=True, help="Of a window.")
@click.option("--calibration-rows", type=click.IntRange(2), help="[default: 128 on a GPU, 8 on a CPU]")
@click.option("--calibration-tokens", type=click.IntRange(2), help="Of a row.  [default: 512 on a GPU, 256 on a CPU]")
@click.option(
    "--method-seconds",
    type=click.FloatRange(0, min_open=True),
    help="Of measuring a method; slow ones read fewer windows.  [default: 60 on a CPU, no limit on a GPU]",
)
@click.option(
    "--max-loss", type=click.FloatRange(0, min_open=True), default=0.05, show_default=True, help="Of the perplexity."
)
@click.option("--keep-models", is_flag=True, help="Leave the quantized models in OUTPUT_DIR/models.")
@click.option(
    "--python", default=sys.executable, help="A Python with axoc-runtime[quantized,export].  [default: this one]"
)
@user_errors
def quant_profile_command(model: str | None, spec: Path | None, python: str, **options: object) -> None:
    """Quantize a model by several methods, and measure each beside it on this machine.

    Size, peak memory, tokens a second and perplexity, with how sure the figures are: a table, a plot, JSON, and what to take
    as lines for a spec. A method that fails is a row with its error. Exit 18 where one failed.

    \b
    Examples:
      axoc quant-profile --model ./my-model --quant-methods awq,gptq,gguf,nf4,fp8,int8 --output-dir profile
      axoc quant-profile --spec spec.yaml --quant-methods nf4,gguf:q4_k_m,gguf:q8_0 --output-dir profile
    """
    from axoc.review.quant_profile import quant_profile

    sys.exit(quant_profile(model, spec, python, options))
