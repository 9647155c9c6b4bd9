"""The firmware header and its examples, compiled for this host against stubs that print every change of a pin."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

FIRMWARE = Path(__file__).parents[1] / "docs" / "firmware"
STUBS = Path(__file__).parent / "firmware_stubs"
COMPILERS = {
    "c": ["gcc", "-std=c99", "-x", "c"],
    "c++": ["g++", "-std=c++11", "-x", "c++"],
}
STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
# Example: the folder of its stubs, languages, further arguments, the pins of inference and phase, the pause of an
# empty pair.
EXAMPLES = {
    "stm32_hal.c": ("stm32", ("c", "c++"), ["-DSTUB_STM32"], (7, 8), []),
    "stm32_hal.c, registers": (
        "stm32",
        ("c", "c++"),
        ["-DSTUB_STM32", "-DJM_BACKEND_STM32_BSRR", "-DJM_SYNC()=record_pending()"],
        (7, 8),
        [],
    ),
    "arduino.ino": ("arduino", ("c++",), [str(STUBS / "arduino/main.cpp")], (2, 3), ["hold 100"]),
    "zephyr.c": ("zephyr", ("c", "c++"), [], (1, 2), ["hold 100"]),
    "esp_idf.c": ("esp_idf", ("c", "c++"), ["-DSTUB_ESP_IDF"], (4, 6), ["hold 100"]),
}
SUBJECTS = [(name, language) for name, row in EXAMPLES.items() for language in row[1]]


def compiler(language: str) -> list[str]:
    program, *options = COMPILERS[language]
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program} here")
    return [program, *options, *STRICT]


def compiled(folder: Path, language: str, *arguments: str, stubs: str = "") -> Path:
    """The path of the program. Fails with what the compiler says."""
    program = folder / "program"
    includes = [f"-I{FIRMWARE}", f"-I{STUBS}", f"-I{STUBS / stubs}"]
    command = [*compiler(language), "-O2", *includes, *arguments, str(STUBS / "record.c"), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def output(program: Path, **environment: str) -> list[str]:
    done = subprocess.run(
        [program], capture_output=True, text=True, timeout=20, env=os.environ | environment, check=False
    )
    return done.stdout.splitlines()


def program(folder: Path, body: str, before: str = "", language: str = "c", *arguments: str) -> list[str]:
    """What main() with this body prints; the pins are recorded by their line."""
    source = folder / "test.c"
    source.write_text(
        f'{before}\n#include "record.h"\n'
        "#define JM_PIN_HIGH(line) record_pin(line, 1)\n#define JM_PIN_LOW(line) record_pin(line, 0)\n"
        f'#include "joulemeter_trigger.h"\nint main(void)\n{{\n{body}\nreturn 0;\n}}\n'
    )
    return output(compiled(folder, language, *arguments, str(source)))


@pytest.mark.parametrize(("name", "language"), SUBJECTS)
def test_examples(tmp_path: Path, name: str, language: str) -> None:
    stubs, _, arguments, (inference, phase), hold = EXAMPLES[name]
    source = FIRMWARE / "examples" / name.partition(",")[0]
    lines = output(compiled(tmp_path, language, *arguments, str(source), stubs=stubs))

    up, down = f"pin {inference} 1", f"pin {inference} 0"
    pairs = lines.index(up)
    setup, empty, work = (
        lines[:pairs],
        lines[pairs : lines.index(f"pin {phase} 1")],
        lines[lines.index(f"pin {phase} 1") :],
    )
    assert {line for line in setup if line.startswith("pin")} == {down, f"pin {phase} 0"}
    if stubs != "stm32":
        assert [line for line in setup if line.startswith("output")] == [f"output {inference} 1", f"output {phase} 1"]
    assert empty == [up, down, *hold] * 10
    assert work == [f"pin {phase} 1", "preprocess", f"pin {phase} 0", up, "invoke", down, "pause"] * 3


@pytest.mark.parametrize("language", COMPILERS)
def test_eembc_stamps(tmp_path: Path, language: str) -> None:
    """A set-up pulse and two stamps for each of five windows, the line high in between."""
    lines = output(compiled(tmp_path, language, str(FIRMWARE / "examples/eembc_stamps.c")))
    pulse = ["pin 0 0", "pin 0 1"]
    assert lines == ["board", "pin 0 0", "pin 0 1", *pulse, *(pulse + ["invoke"] * 20 + pulse) * 5]


@pytest.mark.parametrize("name", ["zephyr.c", "esp_idf.c"])
def test_a_pin_that_cannot_be_set_up_is_reported(tmp_path: Path, name: str) -> None:
    stubs, _, arguments, _, _ = EXAMPLES[name]
    done = compiled(tmp_path, "c", *arguments, str(FIRMWARE / "examples" / name), stubs=stubs)
    assert "invoke" not in output(done, STUB_FAILS="1")


@pytest.mark.parametrize("language", COMPILERS)
def test_phases(tmp_path: Path, language: str) -> None:
    """Seven phases have a pin; others, and the line of the inference itself, are left alone."""
    body = "int n; jm_init(); for (n = -1; n <= 9; ++n) { jm_phase_begin(n); jm_phase_end(n); }"
    lines = program(tmp_path, body, "#define JM_LINES 8", language)
    assert lines == [f"pin {n} 0" for n in range(8)] + [f"pin {n} {level}" for n in range(1, 8) for level in (1, 0)]
    assert program(tmp_path, "jm_phase_begin(1); jm_inference_begin();", "", language) == ["pin 0 1"]


def test_empty_pairs(tmp_path: Path) -> None:
    for count in (0, 1, 1000):
        assert program(tmp_path, f"jm_empty_pairs({count}u);") == ["pin 0 1", "pin 0 0"] * count


def test_pins_may_be_statements(tmp_path: Path) -> None:
    """As macros of board libraries are."""
    source = tmp_path / "test.c"
    source.write_text(
        '#include "record.h"\n#define JM_PIN_HIGH(line) do { record_pin(line, 1); } while (0)\n'
        "#define JM_PIN_LOW(line) do { record_pin(line, 0); } while (0)\n"
        '#include "joulemeter_trigger.h"\nint main(void) { jm_inference_begin(); jm_inference_end(); return 0; }\n'
    )
    assert output(compiled(tmp_path, "c", str(source))) == ["pin 0 1", "pin 0 0"]


def test_stamps_on_a_line_of_their_own(tmp_path: Path) -> None:
    before = "#define JM_LINES 2\n#define JM_STAMP_LINE 1"
    lines = program(
        tmp_path, "jm_init(); jm_stamp_init(); jm_inference_begin(); jm_stamp(); jm_inference_end();", before
    )
    assert lines[2:] == ["pin 1 1", "pin 0 1", "pin 1 0", "pin 1 1", "pin 0 0"]


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("#define JM_BACKEND_ARDUINO\n#define JM_BACKEND_ZEPHYR", "choose one JM_BACKEND"),
        ("", r"define JM_BACKEND_\.\.\. and JM_PINS"),
        ("#define JM_PIN_HIGH(x)", r"define JM_BACKEND_\.\.\. and JM_PINS"),
        ("#define JM_PIN_HIGH(x) 0\n#define JM_PIN_LOW(x) 0\n#define JM_LINES 9", "at_most_eight_lines"),
        ("#define JM_PIN_HIGH(x) 0\n#define JM_PIN_LOW(x) 0\n#define JM_LINES 0", "at_most_eight_lines"),
    ],
)
def test_wrong_configurations_do_not_compile(tmp_path: Path, before: str, message: str) -> None:
    source = tmp_path / "test.c"
    source.write_text(f'{before}\n#include "joulemeter_trigger.h"\n')
    command = [*compiler("c"), f"-I{FIRMWARE}", "-fsyntax-only", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and re.search(message, done.stderr)


_WORK = """\
#include <stdint.h>
extern volatile uint32_t the_pin;
extern int the_work;
#define JM_PIN_HIGH(line) (the_pin = 1)
#define JM_PIN_LOW(line) (the_pin = 0)
#include "joulemeter_trigger.h"
void window(void)
{
    the_work = 1;
    jm_inference_begin();
    the_work = 2;
    jm_inference_end();
    the_work = 3;
}
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads the assembly of x86-64")
@pytest.mark.parametrize("level", ["-O1", "-O2", "-O3", "-Os"])
def test_the_optimiser_moves_no_store_over_an_edge(tmp_path: Path, level: str) -> None:
    """Only the barriers keep the first two stores: without them the last one would replace them."""
    source = tmp_path / "work.c"
    source.write_text(_WORK)

    def accesses(*arguments: str) -> list[str]:
        command = [*compiler("c"), f"-I{FIRMWARE}", level, "-S", "-o", "-", *arguments, str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return re.findall(r"^\tmov\w*\t.*\b(the_pin|the_work)\b", done.stdout, re.MULTILINE)

    assert accesses() == ["the_work", "the_pin", "the_work", "the_pin", "the_work"]
    assert accesses("-DJM_BARRIER()=((void)0)").count("the_work") == 1


_REGISTERS = """\
#include <stdint.h>
typedef struct { volatile uint32_t MODER, OTYPER, OSPEEDR, PUPDR, IDR, ODR, BSRR, LCKR, AFR[2]; } GPIO_TypeDef;
#define GPIOE ((GPIO_TypeDef *)0x40021000u)
#define JM_BACKEND_STM32_BSRR
#define JM_PINS {GPIOE, 0x0080}, {GPIOE, 0x0100}
#include "joulemeter_trigger.h"
void invoke(void);
void window(void)
{
    jm_phase_begin(1);
    jm_inference_begin();
    invoke();
    jm_inference_end();
    jm_phase_end(1);
    jm_phase_begin(2);
}
"""


@pytest.mark.parametrize("core", ["cortex-m0", "cortex-m4", "cortex-m7"])
def test_an_edge_is_one_store_on_arm(tmp_path: Path, core: str) -> None:
    """BSRR lies 24 bytes into the port (RM0090, 8.4.7). No branch is left of the test for a phase without a pin."""
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("there is no arm-none-eabi-gcc here")
    source = tmp_path / "window.c"
    source.write_text(_REGISTERS)
    target = [f"-mcpu={core}", "-mthumb", "-ffreestanding", "-std=c99", *STRICT, f"-I{FIRMWARE}"]
    command = ["arm-none-eabi-gcc", *target, "-O2", "-S", "-o", "-", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    steps = re.findall(r"^\t(str|bl|b|beq|bne|cmp)\t(.*)$", done.stdout, re.MULTILINE)
    assert [name for name, _ in steps] == ["str", "str", "bl", "str", "str"]
    assert all("#24]" in operands for name, operands in steps if name == "str")


def test_a_kept_value_is_computed_before_the_edge(tmp_path: Path) -> None:
    """The whole loop is a constant to the optimiser; it still has to be in memory when the line falls."""
    body = (
        "int k, sum = 0; jm_inference_begin(); for (k = 0; k < 10; ++k) { sum += k; } "
        'JM_KEEP(sum); jm_inference_end(); printf("%d\\n", sum);'
    )
    assert program(tmp_path, body) == ["pin 0 1", "pin 0 0", "45"]


def test_every_example_is_in_the_readme() -> None:
    readme = (FIRMWARE / "README.md").read_text(encoding="utf-8")
    for path in (FIRMWARE / "examples").iterdir():
        assert path.name in readme
    subjects = {name.partition(",")[0] for name in EXAMPLES} | {"eembc_stamps.c"}
    assert subjects == {path.name for path in (FIRMWARE / "examples").iterdir()}


def test_the_readme_documents_what_the_header_has() -> None:
    """Every name that the README uses exists in the header, and every function of the header is in the README."""
    header = (FIRMWARE / "joulemeter_trigger.h").read_text(encoding="utf-8")
    readme = (FIRMWARE / "README.md").read_text(encoding="utf-8")
    for name in set(re.findall(r"\b(?:jm_|JM_)\w+\b", readme)):
        assert re.search(rf"\b{name}\b", header) or name == "jm_gpios", name
    functions = set(re.findall(r"^(?:JM_INLINE|static inline) \w+ (jm_\w+)\(", header, re.MULTILINE))
    for name in functions - {"jm_high", "jm_low", "jm_spin"}:
        assert f"`{name}(" in readme, name
    assert len(functions) == 11 and all(a != b for a, b in pairwise(sorted(functions)))
