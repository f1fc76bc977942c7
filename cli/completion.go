package cli

import (
	"io"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
)

// Each script asks the program itself what may come next: with the hidden last
// argument --generate-bash-completion behind the word being typed, which may be
// empty, it prints one candidate per line.
var completionScripts = map[string]string{
	"bash": `_iotdm() {
    local words
    words=$("${COMP_WORDS[@]:0:COMP_CWORD+1}" --generate-bash-completion 2>/dev/null)
    COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _iotdm iotdm
`,
	"zsh": `#compdef iotdm
_iotdm() {
    local -a candidates
    candidates=("${(@f)$("${(@)words[1,CURRENT]}" --generate-bash-completion 2>/dev/null)}")
    compadd -a candidates || _files
}
if [ "$funcstack[1]" = "_iotdm" ]; then _iotdm "$@"; else compdef _iotdm iotdm; fi
`,
	"fish": `function __iotdm_candidates
    set -l words (commandline -opc)
    set -l typed (commandline -ct)
    $words "$typed" --generate-bash-completion 2>/dev/null
end
complete -c iotdm -a '(__iotdm_candidates)'
`,
	"powershell": `Register-ArgumentCompleter -Native -CommandName iotdm -ScriptBlock {
    param($word, $line, $position)
    $words = @($line.CommandElements | ForEach-Object { $_.ToString() })
    if ($word -eq '') { $words += '' }
    & $words[0] @($words | Select-Object -Skip 1) --generate-bash-completion 2>$null |
        Where-Object { $_ -like "$word*" } |
        ForEach-Object { [System.Management.Automation.CompletionResult]::new($_) }
}
`,
}

func completionCommand(s output.Streams) *urfave.Command {
	return command.Leaf(&urfave.Command{
		Name:      "completion",
		Usage:     "print a script that completes commands, flags, device ids and jobs in a shell",
		ArgsUsage: "SHELL",
		Description: "SHELL is bash, zsh, fish or powershell. For example:\n" +
			"   eval \"$(iotdm completion bash)\"        # in ~/.bashrc\n" +
			"   eval \"$(iotdm completion zsh)\"         # in ~/.zshrc, after compinit\n" +
			"   iotdm completion fish | source         # in config.fish",
		Action: func(ctx *urfave.Context) error {
			script, ok := completionScripts[strings.ToLower(ctx.Args().First())]
			if !ok {
				return fail.Usagef("no completion for %q; there is one for bash, zsh, fish and powershell", ctx.Args().First())
			}
			_, err := io.WriteString(s.Out, script)
			return err
		},
	})
}
