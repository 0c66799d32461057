# Completion for guise(1) in bash. Options and words are checked against the program by tests/docs.sh.
# shellcheck shell=bash

_guise_words()
{
	mapfile -t COMPREPLY < <(compgen -W "$1" -- "$current")
}

_guise_files()
{
	compopt -o filenames
	mapfile -t COMPREPLY < <(compgen -f -- "$current")
}

# One trace subsystem after another, separated by commas.
_guise_trace()
{
	local before='' word=$current
	if [[ $word == *,* ]]; then
		before=${word%,*},
		word=${word##*,}
	fi
	compopt -o nospace
	mapfile -t COMPREPLY < <(compgen -P "$before" \
		-W 'all exit irq exception mode msr cpuid translate mmu io vmx boot' -- "$word")
}

_guise_value()
{
	case $1 in
	-k | --kernel | -i | --initrd | --flat | --kvm-device) _guise_files ;;
	-e | --engine) _guise_words 'auto kvm soft' ;;
	-m | --memory) _guise_words '256M 512M 1G 2G 4G' ;;
	-c | --cpus) _guise_words '1' ;;
	--flat-mode) _guise_words 'real protected long' ;;
	--serial) compopt -o nospace && _guise_words 'stdio file: none' ;;
	--trace) _guise_trace ;;
	--perf) _guise_words 'map jitdump' ;;
	--gdb) compopt -o nospace && _guise_words 'tcp: unix:' ;;
	--cpu) _guise_words 'host host,+vmx' ;;
	--code-cache) _guise_words '16M 64M 256M' ;;
	-a | --append | --tune) COMPREPLY=() ;;
	*) return 1 ;;
	esac
}

_guise()
{
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}

	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		_guise_words 'run check bench version --help'
		return
	fi
	if [[ ${COMP_WORDS[1]} == bench ]]; then
		_guise_words 'exits'
		return
	fi
	[[ ${COMP_WORDS[1]} == run ]] || return
	# "=" breaks words: "--engine=s" arrives as "--engine" "=" "s".
	if [[ $current == '=' ]]; then
		current=''
	elif [[ $previous == '=' ]]; then
		previous=${COMP_WORDS[COMP_CWORD - 2]}
	fi
	_guise_value "$previous" && return
	if [[ $current == -* ]]; then
		_guise_words '-k --kernel -i --initrd -a --append -m --memory -c --cpus -e --engine --serial
			--flat --flat-mode --stats --trace --no-reboot --test-device --cpu --code-cache --gdb --kvm-device --perf --tune --help'
	else
		_guise_files
	fi
}

complete -F _guise guise
