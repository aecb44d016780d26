"""The Python of README.md runs as it is printed, from top to bottom, on the bundled model."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.M | re.S)


def write_score_of_a_normal(path: Path) -> None:
    """score(x; sigma) = -x / (1 + sigma^2): x [B, 2] is normal with variance 1 + sigma^2."""
    nodes = [
        helper.make_node("Mul", ["sigma", "sigma"], ["squared"]),
        helper.make_node("Add", ["squared", "one"], ["variance"]),
        helper.make_node("Div", ["x", "variance"], ["ratio"]),
        helper.make_node("Neg", ["ratio"], ["score"]),
    ]
    real = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "score",
        [
            helper.make_tensor_value_info("x", real, ["batch", 2]),
            helper.make_tensor_value_info("sigma", real, []),
        ],
        [helper.make_tensor_value_info("score", real, ["batch", 2])],
        [helper.make_tensor("one", real, [], [1.0])],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))


def test_python_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_score_of_a_normal(tmp_path / "score.onnx")
    assert len(BLOCKS) >= 3
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, str(README), "exec"), names)
    assert (tmp_path / "7.png").is_file()
    assert (tmp_path / "8.png").is_file()
    printed = capsys.readouterr().out
    assert "denoise" in printed  # the timings
    assert "annealed_langevin: 20 steps" in printed  # the program
    assert names["x"].shape == (64, 2)  # type: ignore[attr-defined]
