# The environment in a container:  docker build -t mdlatent .  &&  docker run --rm -v "$PWD/results:/mdlatent/results" mdlatent
FROM python:3.11-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc g++ git make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /mdlatent
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY workflow/mdlatent/__init__.py workflow/mdlatent/__init__.py
RUN pip install --no-cache-dir --constraint constraints.txt --editable .
COPY . .
CMD ["snakemake", "--profile", "profiles/local"]
