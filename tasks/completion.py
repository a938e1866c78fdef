"""Tab completion of `rnnzoo train`. Hydra answers the queries, but its scripts know no subcommands; these do.

eval "$(rnnzoo train -sc install=bash)"                                              in ~/.bashrc
autoload -U +X bashcompinit && bashcompinit; eval "$(rnnzoo train -sc install=zsh)"  in ~/.zshrc
rnnzoo train -sc install=fish | source                                               in config.fish
"""

import os
import re
import sys
from collections.abc import Sequence

# The word is taken from the line, as bash breaks words at '=' and ':'; what stands before the last break is
# cut from the answers again.
_BASH = """\
_rnnzoo_train() {
    local line="${COMP_LINE:0:$COMP_POINT}" word cut choice
    COMPREPLY=()
    [[ "$line" =~ ^[^[:space:]]+[[:space:]]+train[[:space:]] ]] || return
    word="${line##*[[:space:]]}"
    cut="${word%"${word##*[=:]}"}"
    [[ "$COMP_WORDBREAKS" == *=* ]] || cut=""
    for choice in $(COMP_LINE="$line" rnnzoo train -sc query=bash 2>/dev/null); do
        [[ "$choice" == "$word"* ]] && COMPREPLY+=("${choice#"$cut"}")
    done
}
complete -o nospace -o default -F _rnnzoo_train rnnzoo
"""
_FISH = """\
function _rnnzoo_train
    env COMP_LINE=(commandline -cp | string collect) rnnzoo train -sc query=fish 2>/dev/null
end
complete -c rnnzoo -n '__fish_seen_subcommand_from train' -f -a '(_rnnzoo_train)'
"""
SCRIPTS = {
    "install": {"bash": _BASH, "zsh": _BASH, "fish": _FISH},
    "uninstall": {
        **dict.fromkeys(("bash", "zsh"), "complete -r rnnzoo; unset -f _rnnzoo_train\n"),
        "fish": "complete -e -c rnnzoo; functions -e _rnnzoo_train\n",
    },
}


def complete(arguments: Sequence[str]) -> bool:
    """Print the script that the arguments ask for, if they do; else make a query readable for Hydra."""
    if not {"-sc", "--shell-completion"} & set(arguments):
        return False
    for argument in arguments:
        command, _, shell = argument.partition("=")
        if shell in SCRIPTS.get(command, ()):
            sys.stdout.write(SCRIPTS[command][shell])
            return True
    # Hydra takes one word as the name of the program.
    os.environ["COMP_LINE"] = re.sub(r"^\s*\S+\s+train\b", "rnnzoo", os.environ.get("COMP_LINE", "rnnzoo "))
    return False
