# Needs: everything that earlier stages wrote.
# Makes: report.html, summary.json.


def report_models():
    """Models and their seeds, in the order of the configuration."""
    return json.dumps([{"name": name, "seeds": seeds(name)} for name in MODELS])


rule make_report:
    input:
        index=f"{STUDY}/frames/index.json",
        frames=all_stored_parts,
        latents=[file for folder in runs("latent/{model}/seed{seed}") for file in latent_tables(folder)],
        histories=runs("models/{model}/seed{seed}/history.csv"),
        settings=runs("models/{model}/seed{seed}/config.yaml"),
        states=runs("clusters/{model}/seed{seed}/cluster.json"),
        labels=runs("clusters/{model}/seed{seed}/labels.parquet"),
        populations=runs("clusters/{model}/seed{seed}/summary.csv"),
        transitions=runs("clusters/{model}/seed{seed}/transitions.csv"),
        structures=runs("clusters/{model}/seed{seed}/representatives"),
        sweeps=runs("clusters/{model}/seed{seed}/sweep.csv"),
        evaluation=all_records(),
        kinetics=runs("evaluation/{model}/seed{seed}.kinetics.json"),
        summary=f"{STUDY}/evaluation/summary.csv",
        references=compared_references(),
        conformers=conformer_results(),
    output:
        page=report(
            f"{STUDY}/report.html",
            caption="../report/page.rst",
            category="Report",
            labels={"page": "the whole study"},
        ),
        summary=f"{STUDY}/summary.json",
    log:
        f"{STUDY}/logs/make_report.log",
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=report_mb,
        runtime=grows(60),
    params:
        options=json.dumps(CONFIG, sort_keys=True),
        models=report_models(),
        code=code(*page_code()),
        study=STUDY,
    message:
        "Writing the report"
    shell:
        "python -m mdlatent.report --study-dir {params.study:q} --options - --models {params.models:q}"
        " --output {output.page:q} --summary {output.summary:q} --log {log:q} <<< {params.options:q}"
