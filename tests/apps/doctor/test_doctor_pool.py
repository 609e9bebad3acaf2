"""A check that fails, or whose process dies, affects one image only."""

import multiprocessing
import os

import pytest

from eseg_d2.apps.doctor import check_datasets, image_files, sources_from_config


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="workers inherit the broken check"
)
def test_failing_and_dying_checks_become_findings(tiny, monkeypatch):
    check = image_files._check

    def broken_check(record):
        if record.image_id == 12:
            raise MemoryError("of 3 GB")
        if record.image_id == 21:
            os._exit(7)
        return check(record)

    monkeypatch.setattr(image_files, "_check", broken_check)
    report = check_datasets(sources_from_config(tiny.config()), workers=2)
    failed, died = report.findings
    assert (failed.code, failed.id, failed.file) == ("internal", 12, str(tiny.train.png(1)))
    assert "MemoryError" in failed.message and "of 3 GB" in failed.message
    assert (died.code, died.id, died.file) == ("internal", 21, str(tiny.val.png()))
    assert "exit code 7" in died.message
    assert [d.checked for d in report.datasets] == [2, 1]


def test_zero_workers_are_refused(tiny):
    with pytest.raises(ValueError, match="workers is 0"):
        check_datasets(sources_from_config(tiny.config()), workers=0)
