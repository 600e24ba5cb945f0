# Needs: the stored frames.
# Makes: models/<model>/seed<k>/ (weights, history, settings), encoder.pt beside them, latent/<model>/seed<k>/<simulation>.parquet.


def model_options(wildcards):
    """Only this model's own settings, so that a change to another model leaves it alone."""
    model = MODELS[wildcards.model]
    train = configuration.train_settings(CONFIG, model)
    return options("split", models=[{**model, "train": {}}], train=train)


def train_threads(wildcards):
    return configuration.train_settings(CONFIG, MODELS[wildcards.model])["threads"]


# Modules that families share, beside models/base.py.
FAMILY_MODULES = {
    "pca_distances": ["models/principal.py"],
    "pca_coordinates": ["models/principal.py", "alignment.py", "small_matrices.py"],
    "tica": ["models/principal.py", "models/pca_coordinates.py", "alignment.py", "small_matrices.py"],
    "coordinate": [
        "models/bonds.py",
        "models/coordinate_error.py",
        "models/coordinate_map.py",
        "models/coordinate_start.py",
        "models/kinetics.py",
        "models/pair_features.py",
        "models/principal.py",
        "models/refinement.py",
        "alignment.py",
        "small_matrices.py",
        "coordinate_sizes.py",
        "pair_error.py",
    ],
    "conv2d": ["models/matrix_vae.py", "models/matrix_norm.py"],
    "resnet1d": ["models/matrix_vae.py", "models/batch_norm.py"],
}


def model_code(*modules):
    """Digest of the given modules and of those of the model's own family."""

    def digest(wildcards):
        family = MODELS[wildcards.model]["family"]
        return code(*modules, "models/base.py", f"models/{family}.py", *FAMILY_MODULES.get(family, []))

    return digest


def scratch(wildcards, resources):
    """A folder on the node's own disk, if the profile offers one; its variables are those of the node."""
    return f'--scratch "{resources.scratch}"' if resources.get("scratch") else ""


def training_parts(wildcards):
    return stored(TRAINING)


rule train_model:
    input:
        index=f"{STUDY}/frames/training.json",
        parts=training_parts,
    output:
        model=f"{STUDY}/models/{{model}}/seed{{seed}}/model.pt",
        history=f"{STUDY}/models/{{model}}/seed{{seed}}/history.csv",
        config=f"{STUDY}/models/{{model}}/seed{{seed}}/config.yaml",
    log:
        f"{STUDY}/logs/train_model/{{model}}.seed{{seed}}.log",
    benchmark:
        f"{STUDY}/benchmarks/train_model/{{model}}.seed{{seed}}.tsv"
    conda:
        "../../envs/learn.yaml"
    threads: train_threads
    resources:
        mem_mb=train_mb,
        runtime=train_minutes,
        disk_mb=1000,  # the default looks at sizes of inputs, too early for the launcher
    params:
        options=model_options,
        launcher=launcher,
        scratch=scratch,
        code=model_code(
            "train.py",
            "training.py",
            "optimizer.py",
            "replay.py",
            "epoch_sums.py",
            "averaging.py",
            "feed.py",
            "splits.py",
        ),
        folder=subpath(output.model, parent=True),
        # Outside every declared output, for Snakemake deletes those of a failed job: training goes on from here.
        checkpoints=f"{STUDY}/checkpoints/{{model}}/seed{{seed}}",
    message:
        "Training {wildcards.model}, seed {wildcards.seed}"
    shell:
        "exec {params.launcher} -m mdlatent.train --frames {input.index:q} --model {wildcards.model} --seed {wildcards.seed}"
        " --options {params.options:q} --output-dir {params.folder:q} --checkpoints {params.checkpoints:q} --log-file {log:q}"
        " {params.scratch}"


rule embed:
    input:
        index=own_index,
        parts=own_stored_parts,
        model=f"{STUDY}/models/{{model}}/seed{{seed}}/model.pt",
    output:
        f"{STUDY}/latent/{{model}}/seed{{seed}}/{{simulation}}.parquet",
    log:
        f"{STUDY}/logs/embed/{{model}}.seed{{seed}}.{{simulation}}.log",
    benchmark:
        f"{STUDY}/benchmarks/embed/{{model}}.seed{{seed}}.{{simulation}}.tsv"
    conda:
        "../../envs/learn.yaml"
    resources:
        mem_mb=frames_mb,
        runtime=frames_minutes,
        disk_mb=1000,
        side_by_side=1,
    params:
        launcher=launcher,
        code=model_code("embed.py", "splits.py"),
    message:
        "Mapping {wildcards.simulation} with {wildcards.model}, seed {wildcards.seed}"
    shell:
        "exec {params.launcher} -m mdlatent.embed --frames {input.index:q} --model {input.model:q}"
        " --simulation {wildcards.simulation} --output {output:q} --log-file {log:q}"


rule embed_simulations:
    input:
        index=f"{STUDY}/frames/{{batch}}.json",
        model=f"{STUDY}/models/{{model}}/seed{{seed}}/model.pt",
    output:
        f"{STUDY}/latent/{{model}}/seed{{seed}}/{{batch}}.json",
    log:
        f"{STUDY}/logs/embed_simulations/{{model}}.seed{{seed}}.{{batch}}.log",
    benchmark:
        f"{STUDY}/benchmarks/embed_simulations/{{model}}.seed{{seed}}.{{batch}}.tsv"
    conda:
        "../../envs/learn.yaml"
    resources:
        mem_mb=frames_mb,
        runtime=frames_minutes,
        disk_mb=1000,
    params:
        launcher=launcher,
        code=model_code("embed.py", "splits.py"),
    message:
        "Mapping the simulations of {wildcards.batch} with {wildcards.model}, seed {wildcards.seed}"
    shell:
        "exec {params.launcher} -m mdlatent.embed --frames {input.index:q} --model {input.model:q} --code {params.code}"
        " --output {output:q} --log-file {log:q}"


rule export_encoder:
    input:
        index=f"{STUDY}/frames/training.json",
        parts=training_parts,
        model=f"{STUDY}/models/{{model}}/seed{{seed}}/model.pt",
    output:
        f"{STUDY}/models/{{model}}/seed{{seed}}/encoder.pt",
    log:
        f"{STUDY}/logs/export_encoder/{{model}}.seed{{seed}}.log",
    benchmark:
        f"{STUDY}/benchmarks/export_encoder/{{model}}.seed{{seed}}.tsv"
    conda:
        "../../envs/learn.yaml"
    resources:
        mem_mb=train_mb,
        runtime=grows(30),
    params:
        code=model_code("export.py"),
    message:
        "Exporting the encoder of {wildcards.model}, seed {wildcards.seed}"
    shell:
        "python -m mdlatent.export --frames {input.index:q} --model {input.model:q} --output {output:q} --log {log:q}"
