# Needs: the verified trajectories and topologies.
# Makes: frames/atoms.json, frames/<simulation>/<part>.h5, frames/index.json; when asked for, distances/<simulation>.h5
# and reference/<simulation>.parquet.


localrules:
    index_frames,


def topologies(wildcards):
    return {name: topology(name) for name in SIMULATIONS}.values()


def first_parts(wildcards):
    """The informative choice of atoms looks at coordinates: at the first part of each simulation that is trained on.

    Only the first, so that a simulation that grows does not change the atoms of all.
    """
    if CONFIG["featurize"]["max_atoms"] is None or CONFIG["featurize"]["reduction"] == "even":
        return []
    return [next(iter(parts(name).values())) for name, row in SIMULATIONS.items() if row["role"] == "train"]


def selection_records():
    """What `select_atoms` must know of each simulation."""
    return json.dumps(
        [
            {
                "name": name,
                "topology": topology(name),
                "first_part": next(iter(parts(name).values())),
                "role": row["role"],
            }
            for name, row in SIMULATIONS.items()
        ]
    )


def index_records():
    """What `index_frames` must know of each simulation."""
    return json.dumps(
        [
            {key: row.get(key) for key in ("name", "role", "time_step_ps", "temperature_k")}
            | {
                "topology": topology(name),
                "parts": [
                    {"file": file, "trajectory": trajectory}
                    for file, trajectory in zip(stored_parts(name), parts(name).values(), strict=True)
                ],
            }
            for name, row in SIMULATIONS.items()
        ]
    )


def part_trajectory(wildcards):
    return parts(wildcards.simulation)[wildcards.part]


def fetched_reference(wildcards):
    return reference(wildcards.simulation)


def own_stored_parts(wildcards):
    return stored_parts(wildcards.simulation)


rule select_atoms:
    input:
        topologies,
        first_parts,
    output:
        f"{STUDY}/frames/atoms.json",
    log:
        f"{STUDY}/logs/select_atoms.log",
    benchmark:
        f"{STUDY}/benchmarks/select_atoms.tsv"
    conda:
        "../../envs/frames.yaml"
    resources:
        mem_mb=grows(2000),
        runtime=grows(60),
    params:
        simulations=selection_records(),
        options=options("featurize"),
        code=code("select_atoms.py", "reduction.py", "trajectory.py", "periodic.py"),
    message:
        "Choosing the atoms to map"
    shell:
        "python -m mdlatent.select_atoms --simulations {params.simulations:q} --options {params.options:q}"
        " --output {output:q} --log {log:q}"


rule featurize:
    input:
        # A new simulation rewrites the list of atoms, but changes nobody else's: no reason to read all again. What does
        # change them is the section `featurize`, or, when they are chosen by the data, that data.
        first_parts,
        atoms=ancient(f"{STUDY}/frames/atoms.json"),
        topology=fetched_topology,
        trajectory=part_trajectory,
    output:
        f"{STUDY}/frames/{{simulation}}/{{part}}.h5",
    log:
        f"{STUDY}/logs/featurize/{{simulation}}.{{part}}.log",
    benchmark:
        f"{STUDY}/benchmarks/featurize/{{simulation}}.{{part}}.tsv"
    conda:
        "../../envs/frames.yaml"
    resources:
        mem_mb=grows(2000),
        runtime=featurize_minutes,
    params:
        options=options("featurize"),
        code=code("featurize.py", "frames.py", "trajectory.py", "dcd.py", "periodic.py"),
    message:
        "Reading {wildcards.part} of {wildcards.simulation} into the frame store"
    shell:
        "python -m mdlatent.featurize --simulation {wildcards.simulation} --part {wildcards.part}"
        " --topology {input.topology:q} --trajectory {input.trajectory:q} --atoms {input.atoms:q}"
        " --options {params.options:q} --output {output:q} --log {log:q}"


rule index_frames:
    input:
        parts=all_stored_parts,
        atoms=f"{STUDY}/frames/atoms.json",
    output:
        f"{STUDY}/frames/index.json",
    log:
        f"{STUDY}/logs/index_frames.log",
    conda:
        "../../envs/frames.yaml"
    resources:
        mem_mb=500,
        runtime=30,
    params:
        simulations=index_records(),
        options=options("split", "train", "models"),
        code=code("index_frames.py", "splits.py"),
    message:
        "Listing the stored frames"
    shell:
        "python -m mdlatent.index_frames --atoms {input.atoms:q} --simulations {params.simulations:q}"
        " --options {params.options:q} --output {output:q} --log {log:q}"


rule compute_distances:
    input:
        index=ancient(f"{STUDY}/frames/index.json"),
        parts=own_stored_parts,
    output:
        f"{STUDY}/distances/{{simulation}}.h5",
    log:
        f"{STUDY}/logs/compute_distances/{{simulation}}.log",
    benchmark:
        f"{STUDY}/benchmarks/compute_distances/{{simulation}}.tsv"
    conda:
        "../../envs/frames.yaml"
    resources:
        mem_mb=frames_mb,
        runtime=frames_minutes,
    params:
        code=code("compute_distances.py", "distances.py", "kernels.py"),
    message:
        "Writing the distances of {wildcards.simulation}"
    shell:
        "python -m mdlatent.compute_distances --frames {input.index:q} --simulation {wildcards.simulation}"
        " --output {output:q} --log {log:q}"


rule compare_reference:
    input:
        parts=own_stored_parts,
        index=ancient(f"{STUDY}/frames/index.json"),
        atoms=ancient(f"{STUDY}/frames/atoms.json"),
        reference=fetched_reference,
    output:
        f"{STUDY}/reference/{{simulation}}.parquet",
    log:
        f"{STUDY}/logs/compare_reference/{{simulation}}.log",
    benchmark:
        f"{STUDY}/benchmarks/compare_reference/{{simulation}}.tsv"
    conda:
        "../../envs/learn.yaml"
    resources:
        mem_mb=frames_mb,
        runtime=frames_minutes,
    params:
        code=code("compare_reference.py"),
    message:
        "Comparing {wildcards.simulation} with its reference structure"
    shell:
        "python -m mdlatent.compare_reference --frames {input.index:q} --atoms {input.atoms:q}"
        " --simulation {wildcards.simulation} --reference {input.reference:q} --output {output:q} --log {log:q}"
