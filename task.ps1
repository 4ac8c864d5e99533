# Runs a command of Taskfile.yml on Windows (and in PowerShell anywhere). Makes the environment in .venv on first use,
# and again when the requirements change: only Python 3.11 to 3.13 with pip is needed.
#
#   ./task.ps1 demo
#   ./task.ps1 workflow:approve WORKFLOW_ID=wf_1 JUSTIFICATION="looks right"
#   ./task.ps1 test tests/unit        PowerShell drops a bare --, so whatever is not NAME=VALUE goes to the command
$ErrorActionPreference = 'Stop'
Set-StrictMode -Version 2.0

$here = Split-Path -Parent $MyInvocation.MyCommand.Path
Set-Location -LiteralPath $here
$venv = Join-Path $here '.venv'
$lock = Join-Path $here '.venv.lock'
$stamp = Join-Path $venv '.keyturn-installed'
$onWindows = [System.IO.Path]::DirectorySeparatorChar -eq '\'
$bin = Join-Path $venv $(if ($onWindows) { 'Scripts' } else { 'bin' })
$suffix = if ($onWindows) { '.exe' } else { '' }
$venvPython = Join-Path $bin "python$suffix"
$taskProgram = Join-Path $bin "task$suffix"

function Stop-WithMessage([string]$Message) {
    [Console]::Error.WriteLine("task: $Message")
    exit 1
}

function Test-Python([string[]]$Command) {
    $program = $Command[0]
    $rest = @($Command | Select-Object -Skip 1)
    if (-not (Get-Command $program -ErrorAction SilentlyContinue)) { return $false }
    try {
        & $program @rest -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>$null | Out-Null
        return $LASTEXITCODE -eq 0
    }
    catch { return $false }
}

function Find-Python {
    $candidates = @()
    if ($env:PYTHON) { $candidates += , @($env:PYTHON) }
    $candidates += , @('py', '-3.13')
    $candidates += , @('py', '-3.12')
    $candidates += , @('py', '-3.11')
    $candidates += , @('python3')
    $candidates += , @('python')
    foreach ($candidate in $candidates) {
        if (Test-Python $candidate) { return , $candidate }
    }
    Stop-WithMessage 'Keyturn needs Python 3.11, 3.12 or 3.13 and found none. Install one, or set PYTHON to its path.'
}

function Get-Wanted {
    $hashes = foreach ($file in 'requirements.lock', 'pyproject.toml') {
        (Get-FileHash -Algorithm SHA256 -LiteralPath (Join-Path $here $file)).Hash
    }
    return "$here $($hashes -join ' ')"
}

function Test-Installed {
    if (-not ((Test-Path -LiteralPath $stamp) -and (Test-Path -LiteralPath $taskProgram))) { return $false }
    return (Get-Content -LiteralPath $stamp -Raw).Trim() -eq (Get-Wanted)
}

function Enter-Lock {
    $said = $false
    while ($true) {
        try {
            New-Item -ItemType Directory -Path $lock -ErrorAction Stop | Out-Null
            Set-Content -LiteralPath (Join-Path $lock 'pid') -Value $PID
            return
        }
        catch {
            if (-not (Test-Path -LiteralPath $lock)) { throw }
        }
        $owner = Get-Content -LiteralPath (Join-Path $lock 'pid') -ErrorAction SilentlyContinue
        if ($owner -and -not (Get-Process -Id $owner -ErrorAction SilentlyContinue)) {
            # Its owner is gone. One run at a time may break it, and looks again: it may have been taken since.
            try {
                New-Item -ItemType Directory -Path "$lock.break" -ErrorAction Stop | Out-Null
                try {
                    $now = Get-Content -LiteralPath (Join-Path $lock 'pid') -ErrorAction SilentlyContinue
                    if ($now -eq $owner) { Remove-Item -LiteralPath $lock -Recurse -Force }
                }
                finally { Remove-Item -LiteralPath "$lock.break" -Recurse -Force }
                continue
            }
            catch { $null = $_ }
        }
        if (-not $said) {
            [Console]::Error.WriteLine("task: another run is making the environment; waiting. (If none is, remove $lock.)")
            $said = $true
        }
        Start-Sleep -Seconds 1
    }
}

function Invoke-Pip([string[]]$Arguments) {
    & $venvPython -m pip install --quiet --quiet --disable-pip-version-check --no-input @Arguments
    if ($LASTEXITCODE -ne 0) {
        throw 'the requirements could not be installed; see above. Run the command again once that is solved.'
    }
}

function Install-Environment {
    if (-not (Test-Python @($venvPython))) {
        $python = Find-Python
        $program = $python[0]
        $rest = @($python | Select-Object -Skip 1)
        [Console]::Error.WriteLine('task: making the environment in .venv (once, a minute or two)')
        if (Test-Path -LiteralPath $venv) { Remove-Item -LiteralPath $venv -Recurse -Force }
        & $program @rest -m venv $venv
        if ($LASTEXITCODE -ne 0) { throw 'the environment could not be made; is the venv module of Python installed?' }
    }
    else {
        [Console]::Error.WriteLine('task: bringing .venv up to date')
    }
    if (Test-Path -LiteralPath $stamp) { Remove-Item -LiteralPath $stamp }
    Invoke-Pip @('--require-hashes', '-r', 'requirements.lock')
    Invoke-Pip @('--no-deps', '--no-build-isolation', '--editable', '.')
    Set-Content -LiteralPath $stamp -Value (Get-Wanted)
}

if (-not (Test-Installed)) {
    Enter-Lock
    try {
        if (-not (Test-Installed)) { Install-Environment }
    }
    catch { Stop-WithMessage $_.Exception.Message }
    finally { Remove-Item -LiteralPath $lock -Recurse -Force -ErrorAction SilentlyContinue }
}

$env:VIRTUAL_ENV = $venv
$env:PATH = $bin + [System.IO.Path]::PathSeparator + $env:PATH

# Values that people write go through the environment: Task would expand {{…}} in them, and older shells break quotes.
$forward = @()
$toCommand = $false
foreach ($argument in $args) {
    $text = [string]$argument
    if (-not $toCommand -and $text -match '^(WORKFLOW_ID|JUSTIFICATION|REASON)=') {
        $name, $value = $text -split '=', 2
        Set-Item -LiteralPath "Env:$name" -Value $value
        continue
    }
    if (-not $toCommand -and $forward.Count -gt 0 -and $text -notmatch '^[A-Za-z_]+=') {
        $toCommand = $true
        if ($text -ne '--') { $forward += '--' }
    }
    $forward += $text
}
& $taskProgram @forward
exit $LASTEXITCODE
