"""What training only the masks costs, on small images."""

from benchmarks.speed import adapter as cost


def test_cost_of_masks_only(capsys):
    assert cost.main(["--only", "memory", "--batch-size", "2", "--img-size", "64"]) == 0
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[2:] if line]
    assert len(rows) == 6
    for masks, whole, donor in (rows[:3], rows[3:]):
        assert [float(row[2].strip(" M")) for row in (masks, whole, donor)] == [13.3, 36.8, 25.5]
        saved = [float(row[3].split()[0].replace(",", "")) for row in (masks, whole, donor)]
        assert saved[0] < saved[1] and saved[2] < saved[1]
