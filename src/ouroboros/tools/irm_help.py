"""What the `irm` command says about itself: help, and scripts that complete its words. All from the table. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ouroboros.settings import TYPES
from ouroboros.tools.irm_grammar import either, parse_object, parse_verb, type_in
from ouroboros.tools.irm_table import OBJECTS, VERBS, Key, Verb, setting_keys

# --- help


def usage(verb: Verb) -> str:
    """The verb with its operand and keys, on one line."""
    parts = ["irm", verb.object, verb.name, verb.operand]
    parts += [_key_usage(key) for key in verb.keys if not key.special]
    parts += ["[SETTING VALUE]..."] if any(key.special for key in verb.keys) else []
    parts += ["[-- ARGUMENTS...]"] if verb.takes_args else []
    parts += ["[--json]"] if verb.shows else []
    return " ".join(part for part in parts if part)


def _key_usage(key: Key) -> str:
    text = f"{key.name} {key.value}".strip()
    return (text if key.required else f"[{text}]") + ("..." if key.many else "")


def help_text(words: Sequence[str]) -> str:
    """Help for everything, for an object, or for an object and a verb; raise `UsageError` when there is none such."""
    if not words:
        return "\n".join(["Manage an Ouroboros node.", "", *_usage_lines(VERBS), "", _HELP_NOTES])
    if len(words) == 1:
        object_ = parse_object(words)
        return "\n".join(_usage_lines(verb for verb in VERBS if verb.object == object_))
    verb, rest = parse_verb(words)
    type = type_in(verb, rest) if any(key.settings for key in verb.keys) else None
    if type is not None:
        return type_help(verb, type)
    plain = [key for key in verb.keys if not key.special]
    settings = [key for key in verb.keys if key.special]
    return "\n".join([*_usage_lines([verb]), *_key_lines("Keys", plain), *_key_lines("Settings", settings)])


def type_help(verb: Verb, type: str) -> str:
    """Help for a verb with what one type has of its keys."""
    plain = [key for key in verb.keys if not key.settings]
    settings = [key for key in setting_keys({type: TYPES[type]}) if not key.settings[type].quiet]
    lines = _key_lines(f"Settings of type {type}", settings, types=False) or ["", f"Type {type} has no settings."]
    return "\n".join([*_usage_lines([verb]), *_key_lines("Keys", plain), *lines])


def _usage_lines(verbs: Iterable[Verb]) -> list[str]:
    return [f"{usage(verb)}\n    {verb.help}" for verb in verbs]


def _key_lines(title: str, keys: Sequence[Key], *, types: bool = True) -> list[str]:
    if not keys:
        return []
    heads = [f"{key.name} {key.value}".strip() for key in keys]
    width = max(map(len, heads)) + 2
    return [
        "",
        f"{title}:",
        *(f"    {head:{width}}{_key_help(key, types=types)}" for head, key in zip(heads, keys, strict=True)),
    ]


def _key_help(key: Key, *, types: bool) -> str:
    for_types = f", for {either(key.settings)}" if types and key.special else ""
    return f"{key.help}{for_types}" + (f": {either(key.words)}" if key.words else "")


_HELP_NOTES = """\
Keys go in any order; objects, verbs and keys can be cut short: irm i l is irm ipcp list.
--json prints a list with all its fields. --version prints the version. irm <object> [<verb>] --help says more,
and irm ipcp bootstrap type TYPE --help which settings a type has."""


# --- completion

#: In place of words: the names of files are what fits, or what the running node has of a kind.
FILES = "<files>"
LIVE = {kind: f"<{kind}>" for kind in ("names", "ipcps", "layers", "pids")}

#: What fits an operand that has to be there already.
_OPERANDS = {"<program>": FILES, "<pid>": LIVE["pids"], "<ipcp>": LIVE["ipcps"], "<name>": LIVE["names"]}


def completions() -> dict[str, list[str]]:
    """What can come next, by what is there: nothing, an object, or an object, a verb and the word before the next one.

    `*` in place of that word stands for any that is not listed.
    """
    rows = {"": [*OBJECTS, "--help", "--version"]}
    rows |= {each: [verb.name or FILES for verb in VERBS if verb.object == each] for each in OBJECTS}
    for verb in VERBS:
        if not verb.name:
            continue
        start = f"{verb.object} {verb.name}"
        if verb.operand.startswith("<"):
            rows[f"{start} {verb.name}"] = [] if start == "name create" else [_OPERANDS[verb.operand]]
        for key in verb.keys:
            if key.value:
                rows[f"{start} {key.name}"] = _values(key)
        rows[f"{start} *"] = [*(key.name for key in verb.keys), "--json" if verb.shows else "--help"]
    return rows


def _values(key: Key) -> list[str]:
    if key.value == "PATH":
        return [FILES]
    return [LIVE[key.live]] if key.live else list(key.words)


def completion_script(shell: str) -> str:
    """A script for "bash", "zsh" or "fish" that completes the words of `irm`."""
    return _SCRIPTS[shell].replace("@ROWS@", "\n".join(_rows(fish=shell == "fish")))


def _rows(*, fish: bool) -> list[str]:
    """The table of completions as the branches of a `case` or `switch`. A word that is a pattern is only in the last one."""
    rows = []
    for state, words in completions().items():
        # No object, verb or key has a special character in it, so only the quotes around what comes before `*` matter.
        said = f'echo "{" ".join(words)}"'
        if fish:
            rows.append(f"        case '{state}'\n            {said}")
        else:
            pattern = f'"{state.removesuffix("*")}"*' if state.endswith("*") else f'"{state}"'
            rows.append(f"        {pattern}) {said} ;;")
    return rows


_BASH = """\
# Completion of irm for bash.
_irm_next() {
    case "$1" in
@ROWS@
    esac
}

_irm() {
    local word=${COMP_WORDS[COMP_CWORD]} state="" next
    if ((COMP_CWORD == 2)); then
        state=${COMP_WORDS[1]}
    elif ((COMP_CWORD > 2)); then
        state="${COMP_WORDS[1]} ${COMP_WORDS[2]} ${COMP_WORDS[COMP_CWORD - 1]}"
    fi
    next=$(_irm_next "$state")
    if [[ $next == "<files>" ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
    elif [[ $next == "<"* ]]; then
        next=$(irm --complete "${next//[<>]/}" 2>/dev/null)
        mapfile -t COMPREPLY < <(compgen -W "$next" -- "$word")
    else
        mapfile -t COMPREPLY < <(compgen -W "$next" -- "$word")
    fi
}

complete -F _irm irm
"""

_ZSH = """\
#compdef irm
# Completion of irm for zsh.
_irm_next() {
    case "$1" in
@ROWS@
    esac
}

_irm() {
    local state="" next
    if (( CURRENT == 3 )); then
        state=$words[2]
    elif (( CURRENT > 3 )); then
        state="$words[2] $words[3] $words[CURRENT-1]"
    fi
    next=$(_irm_next "$state")
    if [[ $next == "<files>" ]]; then
        _files
    else
        [[ $next == "<"* ]] && next=$(irm --complete "${next//[<>]/}" 2>/dev/null)
        compadd -- ${=next}
    fi
}

compdef _irm irm
"""

_FISH = """\
# Completion of irm for fish.
function __irm_next
    switch "$argv[1]"
@ROWS@
    end
end

function __irm
    set -l words (commandline -opc)
    set -l state ""
    if test (count $words) -eq 2
        set state $words[2]
    else if test (count $words) -gt 2
        set state "$words[2] $words[3] $words[-1]"
    end
    set -l next (__irm_next "$state")
    if test "$next" = "<files>"
        __fish_complete_path (commandline -ct)
    else if string match -q "<*" -- $next
        irm --complete (string trim -c "<>" -- $next) 2>/dev/null
    else
        string split -n " " -- $next
    end
end

complete -c irm -f -a "(__irm)"
"""

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
