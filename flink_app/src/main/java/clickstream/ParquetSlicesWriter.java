package clickstream;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.flink.api.common.serialization.BulkWriter;
import org.apache.flink.core.fs.FSDataOutputStream;
import org.apache.flink.table.data.RowData;
import org.apache.parquet.column.Encoding;
import org.apache.parquet.column.statistics.Statistics;
import org.apache.parquet.format.Util;
import org.apache.parquet.format.converter.ParquetMetadataConverter;
import org.apache.parquet.hadoop.metadata.BlockMetaData;
import org.apache.parquet.hadoop.metadata.ColumnChunkMetaData;
import org.apache.parquet.hadoop.metadata.FileMetaData;
import org.apache.parquet.hadoop.metadata.ParquetMetadata;

/**
 * Stitches slices into one Parquet file. A column chunk without a dictionary is nothing but its pages, so the chunks of
 * many slices, one after the other, are the chunk of a larger row group: no value is decoded, only the footer is new.
 *
 * <p>Slices wait in memory until {@link #ROW_GROUP_BYTES} of them make a row group, or the file ends.
 */
final class ParquetSlicesWriter implements BulkWriter<RowData> {
  /** Large enough that readers seldom seek, small enough that some hundred open files fit into memory. */
  static final long ROW_GROUP_BYTES = 16 << 20;

  private static final byte[] MAGIC = {'P', 'A', 'R', '1'};

  private final ParquetMetadataConverter converter = new ParquetMetadataConverter();
  private final List<BlockMetaData> rowGroups = new ArrayList<>();
  private final List<Slice> waiting = new ArrayList<>();
  private final FSDataOutputStream out;
  private FileMetaData description;
  private long position;
  private long waitingBytes;

  ParquetSlicesWriter(FSDataOutputStream out) throws IOException {
    this.out = out;
    write(MAGIC, 0, MAGIC.length);
  }

  @Override
  public void addElement(RowData row) throws IOException {
    byte[] file = row.getBinary(0);
    ParquetMetadata footer = footer(file);
    if (description == null) {
      FileMetaData its = footer.getFileMetaData();
      description = new FileMetaData(its.getSchema(), Map.of(), its.getCreatedBy());
    } else if (!description.getSchema().equals(footer.getFileMetaData().getSchema())) {
      throw new IOException("a slice has other columns than those before it: " + footer.getFileMetaData().getSchema());
    }
    for (BlockMetaData rowGroup : footer.getBlocks()) {
      waiting.add(new Slice(file, rowGroup));
    }
    waitingBytes += file.length;
    if (waitingBytes >= ROW_GROUP_BYTES) {
      writeRowGroup();
    }
  }

  @Override
  public void flush() {
    // A row group is written when it is large enough, or with the file's end.
  }

  @Override
  public void finish() throws IOException {
    writeRowGroup();
    if (description == null) {
      throw new IOException("a Parquet file has a schema, and no slice has come that has one");
    }
    long start = position;
    OutputStream counted = new OutputStream() {
      @Override
      public void write(int one) throws IOException {
        ParquetSlicesWriter.this.write(new byte[] {(byte) one}, 0, 1);
      }

      @Override
      public void write(byte[] bytes, int offset, int length) throws IOException {
        ParquetSlicesWriter.this.write(bytes, offset, length);
      }
    };
    Util.writeFileMetaData(
        converter.toParquetMetadata(1, new ParquetMetadata(description, rowGroups)), counted);
    ByteBuffer end = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN);
    end.putInt((int) (position - start)).put(MAGIC);
    write(end.array(), 0, 8);
  }

  private void writeRowGroup() throws IOException {
    if (waiting.isEmpty()) {
      return;
    }
    BlockMetaData rowGroup = new BlockMetaData();
    for (int column = 0; column < waiting.get(0).columns.size(); column++) {
      rowGroup.addColumn(writeColumn(column));
    }
    rowGroup.setRowCount(waiting.stream().mapToLong(slice -> slice.rows).sum());
    rowGroup.setTotalByteSize(
        rowGroup.getColumns().stream().mapToLong(ColumnChunkMetaData::getTotalUncompressedSize).sum());
    rowGroups.add(rowGroup);
    waiting.clear();
    waitingBytes = 0;
  }

  private ColumnChunkMetaData writeColumn(int column) throws IOException {
    ColumnChunkMetaData first = waiting.get(0).columns.get(column);
    Statistics<?> statistics = first.getStatistics();
    Set<Encoding> encodings = new HashSet<>();
    long start = position;
    long values = 0;
    long uncompressed = 0;
    for (Slice slice : waiting) {
      ColumnChunkMetaData chunk = slice.columns.get(column);
      write(slice.file, Math.toIntExact(chunk.getFirstDataPageOffset()), Math.toIntExact(chunk.getTotalSize()));
      values += chunk.getValueCount();
      uncompressed += chunk.getTotalUncompressedSize();
      encodings.addAll(chunk.getEncodings());
      if (chunk != first) {
        statistics = merged(statistics, chunk.getStatistics());
      }
    }
    return ColumnChunkMetaData.get(
        first.getPath(), first.getPrimitiveType(), first.getCodec(), null, encodings, statistics,
        start, 0, values, position - start, uncompressed);
  }

  /** Merges what is known of two slices; of a slice that tells nothing, nothing is known of both. */
  private static Statistics<?> merged(Statistics<?> one, Statistics<?> other) {
    if (one.isEmpty() || other.isEmpty()) {
      return Statistics.getBuilderForReading(one.type()).build();
    }
    Statistics<?> both = one.copy();
    both.mergeStatistics(other);
    return both;
  }

  private ParquetMetadata footer(byte[] file) throws IOException {
    int length = ByteBuffer.wrap(file).order(ByteOrder.LITTLE_ENDIAN).getInt(file.length - 8);
    ByteArrayInputStream footer = new ByteArrayInputStream(file, file.length - 8 - length, length);
    return converter.readParquetMetadata(footer, ParquetMetadataConverter.NO_FILTER);
  }

  private void write(byte[] bytes, int offset, int length) throws IOException {
    out.write(bytes, offset, length);
    position += length;
  }

  /** A row group that waits, with the bytes it is in. */
  private static final class Slice {
    final byte[] file;
    final long rows;
    final List<ColumnChunkMetaData> columns;

    Slice(byte[] file, BlockMetaData rowGroup) throws IOException {
      this.file = file;
      this.rows = rowGroup.getRowCount();
      this.columns = rowGroup.getColumns();
      for (ColumnChunkMetaData column : columns) {
        if (column.hasDictionaryPage()) {
          throw new IOException("a slice has a dictionary, which only one page of a column may: " + column.getPath());
        }
      }
    }
  }
}
