"""Which methods and programs a study used, and how they ask to be cited."""

from collections.abc import Sequence
from typing import Any

from mdlatent.model_names import DIRECT

Reference = tuple[str, str, str | None]  # what it did, reference, DOI

ALWAYS: list[Reference] = [
    (
        "States",
        "HDBSCAN: Campello RJGB, Moulavi D, Sander J (2013) Density-based clustering based on hierarchical density "
        "estimates. PAKDD 2013, LNCS 7819:160–172",
        "10.1007/978-3-642-37456-2_14",
    ),
    (
        "States, program",
        "McInnes L, Healy J, Astels S (2017) hdbscan: Hierarchical density based clustering. J Open Source Softw 2:205",
        "10.21105/joss.00205",
    ),
    (
        "Transitions and lifetimes",
        "Core sets: Buchete NV, Hummer G (2008) Coarse master equations for peptide folding dynamics. J Phys Chem B "
        "112:6057–6069",
        "10.1021/jp0761665",
    ),
    (
        "Slow motion kept",
        "VAMP-2: Wu H, Noé F (2020) Variational approach for learning Markov processes from time series data. J "
        "Nonlinear Sci 30:23–66",
        "10.1007/s00332-019-09567-y",
    ),
    (
        "Slowest linear coordinates",
        "TICA: Pérez-Hernández G et al. (2013) Identification of slow molecular order parameters for Markov model "
        "construction. J Chem Phys 139:015102",
        "10.1063/1.4811489",
    ),
    (
        "Markov models",
        "Prinz JH et al. (2011) Markov models of molecular kinetics: generation and validation. J Chem Phys 134:174105",
        "10.1063/1.3565032",
    ),
    (
        "Neighbours kept",
        "Venna J, Kaski S (2001) Neighborhood preservation in nonlinear projection methods. ICANN 2001, LNCS "
        "2130:485–491",
        "10.1007/3-540-44668-0_68",
    ),
    (
        "Reading trajectories",
        "McGibbon RT et al. (2015) MDTraj: a modern open library for the analysis of molecular dynamics trajectories. "
        "Biophys J 109:1528–1532",
        "10.1016/j.bpj.2015.08.015",
    ),
    (
        "Workflow",
        "Mölder F et al. (2021) Sustainable data analysis with Snakemake. F1000Research 10:33",
        "10.12688/f1000research.29032.2",
    ),
    (
        "Structures on this page",
        "Rego N, Koes D (2015) 3Dmol.js: molecular visualization with WebGL. Bioinformatics 31:1322–1324",
        "10.1093/bioinformatics/btu829",
    ),
]
FAMILIES: dict[str, list[Reference]] = {
    "coordinate": [
        (
            "Model coordinate",
            "Variational autoencoder: Kingma DP, Welling M (2014) Auto-encoding variational Bayes. ICLR 2014, "
            "arXiv:1312.6114",
            None,
        ),
        (
            "Model coordinate, superposition",
            "Horn BKP (1987) Closed-form solution of absolute orientation using unit quaternions. J Opt Soc Am A "
            "4:629–642",
            "10.1364/JOSAA.4.000629",
        ),
    ],
    "conv2d": [
        (
            "Model conv2d",
            "Variational autoencoder: Kingma DP, Welling M (2014) Auto-encoding variational Bayes. ICLR 2014, "
            "arXiv:1312.6114",
            None,
        ),
    ],
    "resnet1d": [
        (
            "Model resnet1d",
            "Variational autoencoder: Kingma DP, Welling M (2014) Auto-encoding variational Bayes. ICLR 2014, "
            "arXiv:1312.6114",
            None,
        ),
        (
            "Model resnet1d, residual blocks",
            "He K, Zhang X, Ren S, Sun J (2016) Identity mappings in deep residual networks. ECCV 2016, LNCS "
            "9908:630–645",
            "10.1007/978-3-319-46493-0_38",
        ),
        (
            "Model resnet1d, batch norm",
            "Ioffe S, Szegedy C (2015) Batch normalization: accelerating deep network training by reducing internal "
            "covariate shift. ICML 2015, PMLR 37:448–456",
            None,
        ),
    ],
    "pca_distances": [
        (
            "Model pca_distances",
            "Principal components: Pearson K (1901) On lines and planes of closest fit to systems of points in space. "
            "Philos Mag 2:559–572",
            "10.1080/14786440109462720",
        ),
    ],
    "pca_coordinates": [
        (
            "Model pca_coordinates",
            "Essential dynamics: Amadei A, Linssen ABM, Berendsen HJC (1993) Essential dynamics of proteins. Proteins "
            "17:412–425",
            "10.1002/prot.340170408",
        ),
        (
            "Mean structure",
            "Generalised Procrustes analysis: Gower JC (1975) Generalized procrustes analysis. Psychometrika 40:33–51",
            "10.1007/BF02291478",
        ),
    ],
    "tica": [
        (
            "Model tica",
            "Time-lagged independent components: Pérez-Hernández G, Paul F, Giorgino T, De Fabritiis G, Noé F (2013) "
            "Identification of slow molecular order parameters for Markov model construction. J Chem Phys 139:015102",
            "10.1063/1.4811489",
        ),
        (
            "Scaling of tica",
            "Kinetic map: Noé F, Clementi C (2015) Kinetic distance and kinetic maps from molecular dynamics "
            "simulation. J Chem Theory Comput 11:5002–5011",
            "10.1021/acs.jctc.5b00553",
        ),
    ],
}
SIMULATE: list[Reference] = [
    (
        "Molecular dynamics",
        "Eastman P et al. (2024) OpenMM 8: molecular dynamics simulation with machine learning potentials. J Phys Chem "
        "B 128:109–116",
        "10.1021/acs.jpcb.3c06662",
    ),
]
TORCH: list[Reference] = [
    (
        "Training",
        "Ansel J et al. (2024) PyTorch 2: faster machine learning through dynamic Python bytecode transformation and "
        "graph compilation. ASPLOS 2024",
        "10.1145/3620665.3640366",
    ),
]


CONFORMERS: list[Reference] = [
    (
        "Conformers, ETKDG",
        "Riniker S, Landrum GA (2015) Better informed distance geometry: using what we know to improve conformation "
        "generation. J Chem Inf Model 55:2562–2574",
        "10.1021/acs.jcim.5b00654",
    ),
    (
        "Conformers, ETKDGv3",
        "Wang S, Witek J, Landrum GA, Riniker S (2020) Improving conformer generation for small rings and macrocycles "
        "based on distance geometry and experimental torsional-angle preferences. J Chem Inf Model 60:2044–2058",
        "10.1021/acs.jcim.0c00025",
    ),
    (
        "Conformers, force field",
        "MMFF94: Tosco P, Stiefl N, Landrum G (2014) Bringing the MMFF force field to the RDKit: implementation and "
        "validation. J Cheminform 6:37",
        "10.1186/s13321-014-0037-3",
    ),
    (
        "Conformers, coverage",
        "Ganea OE et al. (2021) GeoMol: torsional geometric generation of molecular 3D conformer ensembles. NeurIPS "
        "2021, arXiv:2106.07802",
        None,
    ),
]


def references(options: dict[str, Any], families: Sequence[str]) -> list[Reference]:
    """(what it did, reference, DOI) of everything that this study used, models first."""
    found = [entry for family in dict.fromkeys(families) for entry in FAMILIES.get(family, [])]
    found += ALWAYS[:7]
    if any("simulate" in row for row in options["simulations"]):
        found += SIMULATE
    if any(family not in DIRECT for family in families):
        found += TORCH
    if options.get("conformers"):
        found += CONFORMERS
    return found + ALWAYS[7:]
