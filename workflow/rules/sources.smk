# Needs: the table of simulations.
# Makes: trajectories/<simulation>/topology.*, part000.*, part001.* …, each verified, with <file>.source.json beside it.

SIMULATED = [name for name, row in SIMULATIONS.items() if "simulate" in row]
FETCHED = rf"(?!({any_of(SIMULATED)})/)[\w.-]+"  # all others

# Not a parameter: how patiently a file is fetched does not change what is in it.
FETCH_OPTIONS = options("fetch")


def topology_uri(wildcards):
    return SIMULATIONS[wildcards.simulation]["topology"]


def reference_uri(wildcards):
    return SIMULATIONS[wildcards.simulation]["reference"]


def local_reference(wildcards):
    return local_source(reference_uri(wildcards))


def part_uri(wildcards):
    return SIMULATIONS[wildcards.simulation]["trajectory"][int(wildcards.part.removeprefix("part"))]


def local_topology(wildcards):
    return local_source(topology_uri(wildcards))


def local_part(wildcards):
    return local_source(part_uri(wildcards))


def fetched_topology(wildcards):
    return topology(wildcards.simulation)


def simulation_record(wildcards):
    row = SIMULATIONS[wildcards.simulation]
    return json.dumps({key: row[key] for key in ("name", "simulate", "seed", "temperature_k")})


rule fetch_topology:
    input:
        local_topology,
    output:
        file=f"{STUDY}/trajectories/{{simulation}}/topology.{{extension}}",
        source=f"{STUDY}/trajectories/{{simulation}}/topology.{{extension}}.source.json",
    log:
        f"{STUDY}/logs/fetch/{{simulation}}.topology.{{extension}}.log",
    wildcard_constraints:
        simulation=FETCHED,
        extension=r"\w+",
    localrule: is_fetched_here("fetch_topology")
    conda:
        "../../envs/sources.yaml"
    resources:
        mem_mb=500,
        runtime=720,
    params:
        uri=topology_uri,
    message:
        "Fetching the topology of {wildcards.simulation}"
    shell:
        "python -m mdlatent.fetch --uri {params.uri:q} --output {output.file:q}"
        " --options {FETCH_OPTIONS:q} --log {log:q}"


rule fetch_reference:
    input:
        local_reference,
    output:
        file=f"{STUDY}/trajectories/{{simulation}}/reference.{{extension}}",
        source=f"{STUDY}/trajectories/{{simulation}}/reference.{{extension}}.source.json",
    log:
        f"{STUDY}/logs/fetch/{{simulation}}.reference.{{extension}}.log",
    wildcard_constraints:
        extension=r"\w+",
    localrule: is_fetched_here("fetch_reference")
    conda:
        "../../envs/sources.yaml"
    resources:
        mem_mb=500,
        runtime=720,
    params:
        uri=reference_uri,
    message:
        "Fetching the reference structure of {wildcards.simulation}"
    shell:
        "python -m mdlatent.fetch --uri {params.uri:q} --output {output.file:q}"
        " --options {FETCH_OPTIONS:q} --log {log:q}"


rule fetch_trajectory:
    input:
        local_part,
        topology=fetched_topology,
    output:
        file=f"{STUDY}/trajectories/{{simulation}}/{{part}}.{{extension}}",
        source=f"{STUDY}/trajectories/{{simulation}}/{{part}}.{{extension}}.source.json",
    log:
        f"{STUDY}/logs/fetch/{{simulation}}.{{part}}.{{extension}}.log",
    benchmark:
        f"{STUDY}/benchmarks/fetch_trajectory/{{simulation}}.{{part}}.{{extension}}.tsv"
    wildcard_constraints:
        simulation=FETCHED,
        extension=r"\w+",
    localrule: is_fetched_here("fetch_trajectory")
    conda:
        "../../envs/sources.yaml"
    resources:
        mem_mb=1000,
        runtime=1440,
    params:
        uri=part_uri,
    message:
        "Fetching {wildcards.part} of {wildcards.simulation}"
    shell:
        "python -m mdlatent.fetch --uri {params.uri:q} --output {output.file:q} --topology {input.topology:q}"
        " --options {FETCH_OPTIONS:q} --log {log:q}"


rule simulate:
    output:
        topology=f"{STUDY}/trajectories/{{simulation}}/topology.pdb",
        topology_source=f"{STUDY}/trajectories/{{simulation}}/topology.pdb.source.json",
        trajectory=f"{STUDY}/trajectories/{{simulation}}/part000.dcd",
        source=f"{STUDY}/trajectories/{{simulation}}/part000.dcd.source.json",
    log:
        f"{STUDY}/logs/simulate/{{simulation}}.log",
    benchmark:
        f"{STUDY}/benchmarks/simulate/{{simulation}}.tsv"
    wildcard_constraints:
        simulation=any_of(SIMULATED),
    conda:
        "../../envs/sources.yaml"
    resources:
        mem_mb=2000,
        runtime=1440,
    params:
        simulation=simulation_record,
        options=options("simulate"),
        code=code(
            "simulate.py",
            "production.py",
            "dynamics.py",
            "run_state.py",
            "dcd_writer.py",
            "peptide.py",
            "peptide_geometry.py",
        ),
        folder=subpath(output.trajectory, parent=True),
        # Outside every declared output, for Snakemake deletes those of a failed job: the run goes on from here.
        state=f"{STUDY}/checkpoints/simulate/{{simulation}}",
    message:
        "Simulating {wildcards.simulation}"
    shell:
        "python -m mdlatent.simulate --simulation {params.simulation:q} --options {params.options:q}"
        " --output-dir {params.folder:q} --state-dir {params.state:q} --log {log:q}"
