"""PTX, what NVIDIA's compiler makes of a kernel, as C++ for the host.

With `pytest --ptx` the double runs this instead of the text that we write: the instructions that a
GPU's assembler gets. What is checked then is the compiler's view of the text, the assembler's
instructions in it, and every access to memory of a block: its alignment, its end, and whether a
barrier stands between it and what other threads do there. A register becomes a variable, an
instruction a call of what `ptx.hpp` has under its name; an instruction or a word of one that it
does not have is an error of g++.
"""

from __future__ import annotations

import re
from pathlib import Path

_INSTRUCTIONS = Path(__file__).with_name("ptx.hpp").read_text()
_IGNORED = r"\.(version|target|address_size|pragma)\b"
_SHARED = r"(?:\.extern )?\.shared \.align \d+ \.b8 ([\w$]+)\[(\d*)\]"
_CONSTANT = r"\.(?:global|const) \.align (\d+) \.(b\d+) ([\w$]+)\[(\d+)\] = (\{.*\})"
_LOCAL = r"\.local \.align (\d+) \.b8 ([\w$]+)\[(\d+)\]"
_PARAMETER = r"\.param (?:\.align \d+ )?\.\w+ ([\w$]+)(?:\[(\d+)\])?"
_INSTRUCTION = r"(?:@(!?)(%\w+) )?([a-z][\w.:]*)(?: (.*))?"
_SPACES = dict.fromkeys(("param", "global", "local"), "aligned_at<{}>")
_SPACES |= {"shared": "shared<{}, false, {}>", "shared::cluster": "shared<{}, true, {}>"}
_KEYWORDS = ("and", "or", "xor", "not")  # of C++


def translated(ptx):
    """C++ of a module in PTX; its kernels take numbers, and addresses as numbers."""
    return _Module().text(ptx)


class _Module:
    """shared: where arrays in shared memory are. size: of them all, in bytes."""

    def __init__(self):
        self.shared = {}
        self.size = 0

    def text(self, ptx):
        lines = [self._line(part) for part in _parts(ptx)]
        size = f"constexpr unsigned SIZE_OF_ARRAYS = {self.size};"
        return "\n".join([size, _INSTRUCTIONS, "using namespace ptx;", *lines])

    def _line(self, part):
        """C++ of a part of a module."""
        if part in ("{", "}"):
            return part
        if re.match(_IGNORED, part):
            return ""
        if part.endswith(":"):
            return f"{_name(part[:-1])}:;"
        if part.startswith((".visible .entry", ".func")):
            return _head(part)
        if found := re.fullmatch(_SHARED, part):
            name, size = found.groups()
            self.shared[name] = f"ARRAYS + {self.size}" if size else "0"
            self.size += -(-int(size or 0) // 16) * 16
            return ""
        if found := re.fullmatch(_CONSTANT, part):
            align, kind, name, size, values = found.groups()
            return f"alignas({align}) static const {kind} {_name(name)}[{size}] = {values};"
        if found := re.fullmatch(_LOCAL, part):
            return f"alignas({found[1]}) char {_name(found[2])}[{found[3]}];"
        if found := re.fullmatch(_PARAMETER, part):
            return f"u64 {_name(found[1])}[{-(-int(found[2] or 8) // 8)}];"
        if found := re.fullmatch(r"\.reg \.(\w+) (.+)", part):
            return f"{found[1]} {', '.join(_registers(found[2]))};"
        if found := re.fullmatch(_INSTRUCTION, part):
            negated, condition, words, operands = found.groups()
            statement = self._instruction(words, _separated(operands or ""))
            return f"if ({negated}{_name(condition)}) {{ {statement} }}" if condition else statement
        raise NotImplementedError(f"this part of a module in PTX: {part}")

    def _instruction(self, words, operands):
        """C++ of an instruction: what it computes is put into its first operand."""
        name, *rest = words.split(".")
        if name == "bra":
            return f"goto {_name(operands[0])};"
        if name == "ret":
            return "return;"
        if name == "bar":
            return "bar();"
        if name == "barrier":
            return f"barrier_{rest[1]}();"
        if name == "call":
            results, function, given = operands
            return f"{_name(function)}({', '.join([*_members(results), *_members(given)])});"
        if name in ("ld", "st"):
            return self._move(name, rest, operands)
        if name == "mov" and operands[0].startswith("{"):
            parts = ", ".join(self._value(x) for x in _members(operands[0]))
            return f"unpack<{rest[-1]}>({self._value(operands[1])}, {parts});"
        out, *given = operands
        values = ", ".join(self._value(x) for x in given)
        if name == "mov" and given[0].startswith("{"):
            values = ", ".join(self._value(x) for x in _members(given[0]))
            return f"put({self._value(out)}, packed<{rest[-1]}>({values}));"
        return f"put({self._value(out.split('|')[0])}, {self._function(name, rest)}({values}));"

    def _function(self, name, rest):
        """The function of ptx.hpp, with the instruction's types and other words."""
        *rest, kind = rest
        types = [kind]
        if name in ("setp", "shfl"):
            rest = [x for x in rest if x != "sync"]
            name += f"_{rest.pop(0)}"
        if name == "cvt":
            types.insert(0, rest.pop())
        if name in ("cvta", "mapa"):
            rest = []
        how = " | ".join(rest) or "0"
        if "f16" in types:
            return f"{'half_of' if types[0] == 'f16' else 'of_half'}<{how}>"
        return f"{name}{'_' if name in _KEYWORDS else ''}<{', '.join(types)}, {how}>"

    def _move(self, name, rest, operands):
        """C++ of a load or a store, of one number or several."""
        space, *others, kind = rest
        registers, place = operands if name == "ld" else reversed(operands)
        names = [self._value(x) for x in _members(registers)]
        base, offset = re.fullmatch(r"\[ ?(%?[\w$.]+)(?: ?\+ ?(-?\d+))? ?\]", place).groups()
        size = int(kind[1:]) // 8 * len(names)
        if space not in _SPACES or set(others) - {"nc", "v2", "v4"}:
            raise NotImplementedError(f"this access to memory: {name}.{'.'.join(rest)}")
        writes = "true" if name == "st" else "false"
        at = f"{_SPACES[space].format(size, writes)}({self._value(base)} + {offset or 0})"
        return f"{name}<{kind}>({', '.join([at, *names])});"

    def _value(self, text):
        """C++ of an operand: a register, a number, or an address."""
        if re.fullmatch(r"0[fF]\w{8}", text):
            return f"0x{text[2:]}u"
        if re.fullmatch(r"0[dD]\w{16}", text):
            return f"0x{text[2:]}ull"
        if re.fullmatch(r"-?\d+U?", text):
            return f"({text.lower()}ll)"
        if text.startswith("%"):
            return _name(text)
        return self.shared.get(text, f"(u64){_name(text)}")


def _parts(ptx):
    """The parts of a text: statements, labels, heads of functions, and braces around blocks."""
    text = ""
    for token in re.findall(r"[;{}]|[^\s;{}]+", re.sub(r"//[^\n]*", "", ptx)):
        of_function = text.startswith((".visible .entry", ".func"))
        if token == ";":
            yield text + (";" if of_function else "")
            text = ""
        elif token in ("{", "}") and (not text or of_function):
            yield text or token
            text = ""
        elif token.endswith(":") and not text:
            yield token
        elif re.match(_IGNORED, text) and token.startswith("."):
            text = token  # these lines have no end of their own
        else:
            text = f"{text} {token}".strip()


def _head(part):
    """The head of a function, with its brace; its parameters are memory, as PTX has them."""
    if found := re.match(r"\.visible \.entry ([\w$]+) ?\((.*?)\)", part):
        given = re.findall(r"\.param \.(\w+) ([\w$]+)", found[2])
        declared = ", ".join(f"{kind} {name}_" for kind, name in given)
        copies = "".join(
            f" u64 {name}[1] = {{}}; st<{kind}>((u64){name}, {name}_);" for kind, name in given
        )
        return f"__global__ void {found[1]}({declared}) {{{copies}"
    found = re.match(r"\.func (?:\((.*?)\) )?([\w$]+) ?\((.*?)\)", part)
    given = re.findall(r"([\w$]+)(?:\[\d+\])?(?: ?,|$)", f"{found[1] or ''},{found[3]}".strip(", "))
    end = ";" if part.endswith(";") else " {"
    return f"static void {found[2]}({', '.join(f'u64* {name}' for name in given)}){end}"


def _registers(text):
    """The variables of a declaration: `%f<3>` is of three registers, %f0 to %f2."""
    for name, count in re.findall(r"(%?\w+)(?:<(\d+)>)?", text):
        yield from (_name(f"{name}{n}") for n in range(int(count))) if count else [_name(name)]


def _name(text):
    """A name that is one of C++, and of nothing else there."""
    return re.sub(r"\W", "_", text.lstrip("%")) + ("_" if text.startswith("%") else "")


def _separated(text):
    """Operands, which commas separate outside of braces and parentheses."""
    return [x.strip() for x in re.findall(r"(?:\{[^}]*\}|\([^)]*\)|[^,{(])+", text)]


def _members(text):
    """What is listed in braces or parentheses; or an operand alone."""
    return [x.strip() for x in text.strip("{}() ").split(",") if x.strip()]
