# Needs: the section `conformers` of the configuration; without it, none of this is run.
# Makes: conformers/ (references.sdf, molecules.parquet, summary.csv, left_out.csv, conformers.json), for the report.

CONFORMERS = CONFIG["conformers"]
CONFORMER_PARTS = [f"part{number:03d}" for number in range(CONFORMERS["jobs"])] if CONFORMERS else []
# What the molecules are chosen by, and what is measured of them: so that another generator reads no file again.
CHOICE = ("references", "made_by", "part", "split_seed", "max_molecules", "max_heavy_atoms", "jobs")


def conformer_choice():
    """The keys of the section by which molecules are chosen, as `--options`."""
    return json.dumps({"conformers": {key: CONFORMERS[key] for key in CHOICE}} if CONFORMERS else {}, sort_keys=True)


def conformer_rows():
    """What was measured, for every seed and part of the molecules."""
    seeds = CONFORMERS["seeds"] if CONFORMERS else []
    return [f"{STUDY}/conformers/seed{seed}/{part}.parquet" for seed in seeds for part in CONFORMER_PARTS]


def conformer_results():
    """What the report shows of the benchmark of conformers, if there is one."""
    return [f"{STUDY}/conformers/conformers.json"] if CONFORMERS else []


if CONFORMERS:

    rule fetch_molecules:
        input:
            local_source(CONFORMERS["references"]),
        output:
            file=f"{STUDY}/conformers/references.sdf",
            source=f"{STUDY}/conformers/references.sdf.source.json",
        log:
            f"{STUDY}/logs/fetch/conformers.log",
        localrule: is_fetched_here("fetch_molecules")
        conda:
            "../../envs/sources.yaml"
        resources:
            mem_mb=500,
            runtime=720,
        params:
            uri=CONFORMERS["references"],
        message:
            "Fetching the reference conformers"
        shell:
            "python -m mdlatent.fetch --uri {params.uri:q} --output {output.file:q}"
            " --options {FETCH_OPTIONS:q} --log {log:q}"

    rule choose_molecules:
        input:
            f"{STUDY}/conformers/references.sdf",
        output:
            parts=[f"{STUDY}/conformers/parts/{part}.sdf" for part in CONFORMER_PARTS],
            about=f"{STUDY}/conformers/parts/references.json",
        log:
            f"{STUDY}/logs/choose_molecules.log",
        benchmark:
            f"{STUDY}/benchmarks/choose_molecules.tsv"
        conda:
            "../../envs/conformers.yaml"
        resources:
            mem_mb=molecules_mb,
            runtime=grows(120),
        params:
            options=conformer_choice(),
            code=code(
                "conformers/references.py",
                "conformers/molecules.py",
                "conformers/scaffolds.py",
                "conformers/sdf.py",
                "conformers/split_options.py",
            ),
            folder=subpath(output.about, parent=True),
        message:
            "Choosing the molecules for the benchmark of conformers"
        shell:
            "python -m mdlatent.conformers.references {input:q} --options {params.options:q}"
            " --output-dir {params.folder:q} --log {log:q}"

    rule benchmark_conformers:
        input:
            molecules=f"{STUDY}/conformers/parts/{{part}}.sdf",
            about=f"{STUDY}/conformers/parts/references.json",
            weights=CONFORMERS["autoencoder"] or [],
        output:
            f"{STUDY}/conformers/seed{{seed}}/{{part}}.parquet",
        log:
            f"{STUDY}/logs/benchmark_conformers/seed{{seed}}.{{part}}.log",
        benchmark:
            f"{STUDY}/benchmarks/benchmark_conformers/seed{{seed}}.{{part}}.tsv"
        conda:
            "../../envs/conformers.yaml"
        resources:
            mem_mb=grows(2000),
            runtime=conformer_minutes,
        params:
            generators=CONFORMERS["generators"],
            limit_s=CONFORMERS["limit_s"],
            weights="--autoencoder" if CONFORMERS["autoencoder"] else "",
            code=code(*conformer_code()),
        message:
            "Making conformers and measuring them, seed {wildcards.seed}, {wildcards.part}"
        shell:
            "python -m mdlatent.conformers.benchmark {input.molecules:q} --seed {wildcards.seed}"
            " --generators {params.generators:q} {params.weights} {input.weights:q}"
            " --limit-s {params.limit_s} --output {output:q} --log {log:q}"

    rule collect_conformers:
        input:
            parts=conformer_rows(),
            about=f"{STUDY}/conformers/parts/references.json",
        output:
            molecules=f"{STUDY}/conformers/molecules.parquet",
            summary=report(
                f"{STUDY}/conformers/summary.csv",
                caption="../report/conformers.rst",
                category="Conformers",
                labels={"table": "all generators"},
            ),
            left_out=f"{STUDY}/conformers/left_out.csv",
            results=f"{STUDY}/conformers/conformers.json",
        log:
            f"{STUDY}/logs/collect_conformers.log",
        conda:
            "../../envs/conformers.yaml"
        resources:
            mem_mb=grows(2000),
            runtime=grows(30),
        params:
            options=options("conformers"),
            code=code(
                "conformers/collect.py",
                "conformers/findings.py",
                "conformers/metrics.py",
                "conformers/summary.py",
                "evaluation_table.py",
            ),
            folder=subpath(output.results, parent=True),
        message:
            "Putting the results of the conformer generators together"
        shell:
            "python -m mdlatent.conformers.collect {input.parts:q} --references {input.about:q}"
            " --options {params.options:q} --output-dir {params.folder:q} --log {log:q}"
