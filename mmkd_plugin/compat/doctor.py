"""What is installed, what was tried together, and what will not work, each with its fix.

The doctor judges by what fails: a version that no stack was tried with is worth a note, and breaks nothing by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mmkd_plugin.compat import remedies
from mmkd_plugin.compat.machine import Machine
from mmkd_plugin.compat.patient import PROBES, Patient
from mmkd_plugin.compat.stacks import DISTRIBUTIONS, Stack, release, within

PYTHON = '>=3.8'
"""What the package asks for; no version in between is known to fail."""

MMCV_PARTS = ('mmcv._ext', 'mmcv.ops')
"""The compiled operators, and the code of the same version that calls them."""

IN_PLACE_OF = {'opencv-python': ('opencv-python-headless', 'opencv-contrib-python', 'opencv-contrib-python-headless')}
"""What does as well as a package that a stack names."""


class Fault(NamedTuple):
    """Something that will not work, and the command or step that mends it."""

    problem: str
    fix: str

    def __str__(self) -> str:
        return f'{self.problem}; fix: {self.fix}'


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        package: The name that Python imports where pip knows the package by several, else pip's.
        distribution: What is installed; what the stack has where nothing is.
        version: Empty where nothing is installed.
        tested: What the nearest stack has.
        verdict: ``ok``, ``not tested`` or ``missing``.
    """

    package: str
    distribution: str
    version: str
    tested: str
    verdict: str


class Report(NamedTuple):
    """The outcome of an examination.

    Attributes:
        stack: The nearest to what is installed.
        rows: What is installed beside what that stack has, Python first.
        faults: What will not work.
        notes: What is worth knowing and breaks nothing that distillation needs.
    """

    stack: Stack
    rows: list[Row]
    faults: list[Fault]
    notes: list[str]


def examine(machine: Machine | None = None) -> Report:
    """Look at everything the plugin builds on.

    Args:
        machine: Who answers; by default this interpreter.

    Returns:
        The report. Nothing is raised: an import that fails becomes a fault.
    """
    patient = Patient(machine or Machine())
    faults: list[Fault] = []
    # What others import comes first, so that its failure is told once.
    checks = (_python, _torch, _numpy, _opencv, _overlaps, _missing, _undeclared, _setuptools, _refusals, _mmcv)
    for check in (*checks, _devices, _imports, _hook):
        faults += check(patient)
    faults += [] if faults else _plugin(patient)
    rows = _rows(patient)
    return Report(patient.stack, rows, faults, list(_notes(patient, rows)))


def _python(patient: Patient) -> Iterator[Fault]:
    if not within(patient.python, PYTHON):
        yield Fault(f'Python {patient.python} is outside {PYTHON}', 'make an environment of a later Python')


def _torch(patient: Patient) -> Iterator[Fault]:
    version = patient.version('torch')
    if not version:
        yield Fault('torch is not installed', remedies.torch(patient, ''))
    elif not patient.torch_works:
        why = patient.why_not('torch')
        yield Fault(f'torch {version} cannot be imported ({why})', remedies.torch(patient, why))


def _numpy(patient: Patient) -> Iterator[Fault]:
    missing = patient.why_not('numpy')
    who = f'numpy {patient.version("numpy")}'.rstrip()
    why = missing or (patient.machine.why_no_numpy() if patient.torch_works else '')
    if missing:
        yield Fault(f'{who} cannot be imported ({why})', remedies.numpy(patient, importable=False))
    elif why:
        problem = f'torch {patient.version("torch")} cannot use {who} ({why})'
        yield Fault(problem, remedies.numpy(patient, importable=True))
    if why:
        patient.told += [why, "'numpy'"]


def _opencv(patient: Patient) -> Iterator[Fault]:
    why = patient.why_not('cv2')
    if not why or patient.was_told(why):
        return
    where = ' on this machine without a display' if '.so' in why else ''
    installed = bool(where and patient.version('opencv-python'))
    yield Fault(f'OpenCV cannot be imported{where} ({why})', remedies.opencv(patient, remove=installed))
    patient.told += [why, "'cv2'"]


def _overlaps(patient: Patient) -> Iterator[Fault]:
    for module in DISTRIBUTIONS:
        found = patient.found(module)
        if len(found) > 1:
            both = ' and '.join(f'{name} {patient.version(name)}' for name in found)
            yield Fault(
                f'{both} lie in one folder, where the later has overwritten the other',
                remedies.keep_one(patient, module),
            )
            patient.told.append(module)


def _missing(patient: Patient) -> Iterator[Fault]:
    for module in ('mmengine', 'mmrazor'):
        if not patient.found(module):
            yield Fault(f'{patient.distribution(module)} is not installed', remedies.install(patient, module))
            patient.told += [f"'{module}'", 'needs MMRazor']
    others = [name for name in remedies.OTHER_MMCV if patient.version(name)]
    for name in others:
        problem = f'{name} {patient.version(name)} {remedies.OTHER_MMCV[name]}'
        yield Fault(problem, remedies.build_mmcv(patient))
    if not patient.found('mmcv') and not others:
        yield Fault(f'{patient.distribution("mmcv")} is not installed', remedies.build_mmcv(patient))
    if others or not patient.found('mmcv'):
        patient.told += ["'mmcv", 'MMCV==']


def _undeclared(patient: Patient) -> Iterator[Fault]:
    for name, user in (('joblib', 'mmrazor'), ('ftfy', 'mmseg'), ('regex', 'mmseg')):
        if patient.failure(user) and patient.why_not(name):
            yield Fault(
                f'{patient.distribution(user)} needs {name}, which is not installed', remedies.add(patient, name)
            )
            patient.told += [f"'{name}'", f'{name}, which']


def _setuptools(patient: Patient) -> Iterator[Fault]:
    # Some import it at once, and MMEngine where a config names a base of another package.
    for module in PROBES:
        reasons = [patient.failure(module)]
        if module == 'mmengine' and patient.torch_works and patient.found(module):
            reasons.append(patient.machine.why_no_bases())
        if any('pkg_resources' in why for why in reasons):
            version = patient.version('setuptools')
            who = f'setuptools {version} brings no pkg_resources' if version else 'setuptools is not installed'
            yield Fault(f'{who}, which {patient.title(module)} imports', remedies.setuptools(patient))
            patient.told.append('pkg_resources')
            return


def _refusals(patient: Patient) -> Iterator[Fault]:
    for base, words in (('mmcv', 'MMCV=='), ('mmengine', 'MMEngine==')):
        for module in ('mmdet', 'mmseg', 'mmrazor'):
            why = patient.failure(module) if len(patient.found(module)) == 1 else ''
            if words in why and not patient.was_told(why):
                yield Fault(
                    f'{patient.title(module)} does not take {patient.title(base)} ({why})',
                    remedies.accept(patient, module, base, why),
                )
                patient.told.append(words)
                break


def _mmcv(patient: Patient) -> Iterator[Fault]:
    if _no_single_mmcv(patient) or patient.failure('mmcv') or patient.was_told('MMCV=='):
        return
    why = next(filter(None, map(patient.why_not, MMCV_PARTS)), '')
    title, build = patient.title('mmcv'), remedies.build_mmcv(patient)
    if not why or patient.was_told(why):
        return
    if "'mmcv._ext'" in why:
        yield Fault(f'{title} was built without its operators', build)
    elif 'No module named' in why:
        yield Fault(f'the operators of {title} cannot be imported ({why})', remedies.mend_import(patient, 'mmcv', why))
    else:
        yield Fault(f'the operators of {title} do not fit torch {patient.version("torch")} ({why})', build)
    patient.told += [why, "'mmcv"]


def _no_single_mmcv(patient: Patient) -> bool:
    return not patient.torch_works or len(patient.found('mmcv')) != 1


def _devices(patient: Patient) -> Iterator[Fault]:
    if _no_single_mmcv(patient) or any(map(patient.why_not, MMCV_PARTS)):
        return
    wanted, built = patient.machine.torch_cuda(), patient.machine.mmcv_cuda()
    if wanted and wanted.split('.')[0] != built.split('.')[0]:
        built = f'CUDA {built}' if built else 'the CPU only'
        yield Fault(
            f'torch runs on CUDA {wanted}, but the operators of {patient.distribution("mmcv")} were built for {built}',
            f'install the CUDA toolkit {wanted} with nvcc, then {remedies.build_mmcv(patient)}',
        )


def _imports(patient: Patient) -> Iterator[Fault]:
    for module in PROBES:
        why = patient.failure(module)
        # Of two distributions nothing more can be said.
        if why and len(patient.found(module)) == 1 and not patient.was_told(why):
            fix = remedies.mend_import(patient, module, why)
            yield Fault(f'{patient.title(module)} cannot be imported ({why})', fix)
            patient.told.append(why)


def _plugin(patient: Patient) -> Iterator[Fault]:
    """What all the packages are for; where one of them fails, that is the fault."""
    why = patient.why_not('mmkd_plugin.engine')
    if why:
        yield Fault(
            f'the plugin itself cannot be imported ({why})', 'report it with the output of "mmkd doctor --json"'
        )


def _hook(patient: Patient) -> Iterator[Fault]:
    if not patient.machine.hook_runs() and not patient.machine.hook_is_off():
        yield Fault(
            'the start-up file of the plugin did not run, so that the stock tools do not know "mmkd_plugin::" bases',
            '"pip install --no-deps -e ." in the folder of the plugin',
        )


def _rows(patient: Patient) -> list[Row]:
    stack = patient.stack
    same = release(patient.python)[:2] == release(stack.python)
    rows = [Row('python', 'python', patient.python, stack.python, 'ok' if same else 'not tested')]
    for name, spec in stack.packages.items():
        module = next((module for module, names in DISTRIBUTIONS.items() if name in names), '')
        instead = (name, *IN_PLACE_OF.get(name, ()))
        found = patient.found(module) if module else [other for other in instead if patient.version(other)][:1]
        tested = spec[2:] if spec.startswith('==') else spec or 'any'
        if not found:
            rows.append(Row(module or name, name, '', tested, 'missing'))
            continue
        ok = len(found) == 1 and within(patient.version(found[0]), spec) and (not module or found == [name])
        tested = tested if name in found or not module else f'{name} {tested}'
        version = ' + '.join(patient.version(other) for other in found)
        rows.append(Row(module or name, ' + '.join(found), version, tested, 'ok' if ok else 'not tested'))
    return rows


def _notes(patient: Patient, rows: list[Row]) -> Iterator[str]:
    # Two distributions of one package are a fault, and no note.
    two = [module for module in DISTRIBUTIONS if len(patient.found(module)) > 1]
    marked = [row for row in rows if row.verdict == 'not tested' and row.package not in two]
    others = [f'{row.distribution} {row.version} ({row.tested})' for row in marked]
    if others:
        yield f'Other than in the nearest stack, and no fault by that alone: {", ".join(others)}.'
    for module, what in (('mmdet', 'detectors'), ('mmseg', 'segmentors')):
        if not patient.found(module):
            yield f'{patient.distribution(module)} is not installed: {what} cannot be distilled.'
    lacking = patient.machine.lacking_in_torch()
    if lacking:
        yield f'The quantization part of mmrazor is switched off: torch has no {lacking[0].split(".")[-1]}.'
    if patient.machine.hook_is_off():
        yield (
            'MMKD_NO_STARTUP is set: the stock tools know no "mmkd_plugin::" bases and refuse the checkpoints of '
            'MMEngine on current torch; unset it where that matters.'
        )
    if not patient.version('openmim'):
        yield (
            '"mim train" needs openmim: pip install --no-deps openmim, then pip install click colorama model-index '
            'pandas requests rich tabulate (its other dependencies would downgrade setuptools).'
        )
