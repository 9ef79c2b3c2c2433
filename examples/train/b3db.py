"""Makes `data/b3db/molecules.parquet` from B3DB: molecules, and whether they pass the blood–brain barrier.

One row a molecule, in B3DB's order, those that RDKit cannot parse left out:

    id               string               `B3DB-1`, its number there
    smiles           string               as B3DB writes it
    label            string               `BBB+` passes, `BBB-` does not
    num_nodes        int32                heavy atoms, n
    node_features    list<list<int32>>    [n, 9]: atomic number, chirality, degree, formal charge + 5, hydrogens,
                                          radical electrons, hybridization, aromatic, in a ring
    edge_sources     list<int32>          [e]: each bond twice, there and back
    edge_targets     list<int32>          [e]
    edge_attributes  list<list<int32>>    [e, 3]: bond type, stereo, conjugated

The numbers are those of `torch_geometric.utils.from_smiles`. The input is in the Python package `qc-b3db`:

    pip download --no-deps qc-b3db && python -m zipfile -e qc_b3db-*.whl b3db
    python examples/train/b3db.py --data b3db/B3DB/B3DB_classification.tsv

Takes a few seconds.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
from rdkit import Chem, RDLogger
from rdkit.Chem import Atom, Bond

from common import DATA, arguments, write_parquet

NUMBERS, ROWS = pa.list_(pa.int32()), pa.list_(pa.list_(pa.int32()))
HYBRIDIZATIONS = ["UNSPECIFIED", "S", "SP", "SP2", "SP3", "SP3D", "SP3D2", "OTHER"]
SCHEMA = pa.schema(
    [
        *[(name, pa.string()) for name in ("id", "smiles", "label")],
        ("num_nodes", pa.int32()),
        ("node_features", ROWS),
        ("edge_sources", NUMBERS),
        ("edge_targets", NUMBERS),
        ("edge_attributes", ROWS),
    ]
)


def node(atom: Atom) -> list[int]:
    return [
        atom.GetAtomicNum(),
        int(atom.GetChiralTag()),
        atom.GetTotalDegree(),
        atom.GetFormalCharge() + 5,
        atom.GetTotalNumHs(),
        atom.GetNumRadicalElectrons(),
        HYBRIDIZATIONS.index(str(atom.GetHybridization())),
        int(atom.GetIsAromatic()),
        int(atom.IsInRing()),
    ]


def edge(bond: Bond) -> list[int]:
    return [int(bond.GetBondType()), int(bond.GetStereo()), int(bond.GetIsConjugated())]


def graph(molecule: Chem.Mol) -> dict:
    """The columns of a molecule's graph."""
    both = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx(), edge(b)) for b in molecule.GetBonds()]
    both = sorted(both + [(target, source, attributes) for source, target, attributes in both])
    return {
        "num_nodes": molecule.GetNumAtoms(),
        "node_features": [node(atom) for atom in molecule.GetAtoms()],
        "edge_sources": [source for source, _, _ in both],
        "edge_targets": [target for _, target, _ in both],
        "edge_attributes": [attributes for _, _, attributes in both],
    }


def main() -> None:
    args = arguments(__doc__, data=Path("B3DB_classification.tsv"), out=DATA / "b3db/molecules.parquet")
    RDLogger.DisableLog("rdApp.*")
    table = pyarrow.csv.read_csv(
        args.data, parse_options=pyarrow.csv.ParseOptions(delimiter="\t", newlines_in_values=True)
    )
    rows = []
    for row in table.select(["NO.", "SMILES", "BBB+/BBB-"]).to_pylist():
        if molecule := Chem.MolFromSmiles(row["SMILES"]):
            rows.append(
                {"id": f"B3DB-{row['NO.']}", "smiles": row["SMILES"], "label": row["BBB+/BBB-"]} | graph(molecule)
            )
    print(f"{len(table) - len(rows)} of {len(table)} molecules cannot be parsed")
    write_parquet(pa.Table.from_pylist(rows, SCHEMA), args.out, dictionary=["label"])


if __name__ == "__main__":
    main()
