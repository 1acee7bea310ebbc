"""``tokentape completion``: the script that makes a shell complete commands, options and tapes."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

from tokentape.cli.output import document, json_option, print_document

__all__ = ["command", "complete_tapes"]

VARIABLE = "_TOKENTAPE_COMPLETE"


def complete_tapes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files and folders, by the shell's own means."""
    return [CompletionItem(incomplete, type="file")]


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
def command(shell: str, as_json: bool) -> None:
    """Print the completion script of a shell.

    \b
    bash:  tokentape completion bash > ~/.local/share/bash-completion/completions/tokentape
    zsh:   tokentape completion zsh > a folder in $fpath/_tokentape
    fish:  tokentape completion fish > ~/.config/fish/completions/tokentape.fish
    """
    from tokentape.cli.program import NAME, program

    maker = get_completion_class(shell)
    assert maker is not None
    complete = maker(program, {}, NAME, VARIABLE)
    # not source(): for bash it first asks the bash at hand for its version, which need not be the one that will read
    # this
    script = complete.source_template % complete.source_vars()
    if as_json:
        print_document(document("completion", shell=shell, script=script))
    else:
        click.echo(script)
