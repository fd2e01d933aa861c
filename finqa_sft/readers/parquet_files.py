"""Parquet files, a few rows at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from finqa_sft.errors import DataError
from finqa_sft.readers.files import CHUNK, cause, check_file

_BYTES_AT_ONCE = 4 * 2**20


def parquet_rows(path: Path, *, wanted: Collection[str]) -> tuple[list[str], Iterator[object]]:
    """The names of a file's columns, and its rows with the wanted ones alone.

    Raises:
        DataError: The file is missing, empty or no Parquet file; or, from the rows, damaged.
    """
    import pyarrow
    import pyarrow.parquet

    check_file(path)

    def damaged(error: Exception) -> DataError:
        return DataError(
            f"{path}: no Parquet file, or a damaged one ({cause(error)}); write it again"
        )

    try:
        # Without a buffer a group of rows is read as a whole, and a file may be one group.
        file = pyarrow.parquet.ParquetFile(path, buffer_size=CHUNK, pre_buffer=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise damaged(error) from error
    columns: list[str] = file.schema_arrow.names
    columns_read = [name for name in columns if name in wanted]
    at_once = max(1, min(256, _BYTES_AT_ONCE * file.metadata.num_rows // path.stat().st_size))

    def rows() -> Iterator[object]:
        try:
            with file:
                for batch in file.iter_batches(batch_size=at_once, columns=columns_read):
                    yield from batch.to_pylist()
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise damaged(error) from error

    return columns, rows()
