"""What `obc` puts on the wire, and its options. No flow takes part."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from ouroboros.tools import obc
from ouroboros.tools.obc import encode_message


def test_a_message_is_the_captured_one() -> None:
    assert encode_message("hello all") == bytes.fromhex("68656c6c6f20616c6c00")


def test_a_message_is_utf_8_and_an_argument_that_is_none_goes_as_it_is() -> None:
    assert encode_message("é") == b"\xc3\xa9\0"
    assert encode_message("\udcff") == b"\xff\0"


@pytest.mark.parametrize("text", ["x" * 255, "é" * 127])
def test_the_longest_message_fits_a_reader_of_256_bytes(text: str) -> None:
    assert len(encode_message(text)) <= 256


@pytest.mark.parametrize("text", ["", "x" * 256, "é" * 128, "a\0b"])
def test_a_message_that_a_reader_could_not_print_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"1 to 255|null character"):
        encode_message(text)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "add -n LAYER"),
        (["-m", "hello"], "add -n LAYER"),
        (["-n", "bc"], "add -m TEXT, or -l"),
        (["-n", "bc", "-m", ""], "1 to 255"),
        (["-n", "bc", "-m", "x" * 256], "1 to 255"),
    ],
)
def test_wrong_options_are_named(words: list[str], text: str) -> None:
    result = CliRunner().invoke(obc.obc, words)
    assert result.exit_code == click.UsageError.exit_code
    assert text in result.output
