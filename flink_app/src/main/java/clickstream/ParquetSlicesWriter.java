package clickstream;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import org.apache.flink.api.common.serialization.BulkWriter;
import org.apache.flink.core.fs.FSDataOutputStream;
import org.apache.flink.table.data.RowData;
import org.apache.parquet.column.ColumnDescriptor;
import org.apache.parquet.column.statistics.Statistics;
import org.apache.parquet.format.ColumnChunk;
import org.apache.parquet.format.ColumnMetaData;
import org.apache.parquet.format.Encoding;
import org.apache.parquet.format.FileMetaData;
import org.apache.parquet.format.RowGroup;
import org.apache.parquet.format.Util;
import org.apache.parquet.format.converter.ParquetMetadataConverter;
import org.apache.parquet.schema.MessageType;
import org.apache.parquet.schema.PrimitiveType;
import shaded.parquet.org.apache.thrift.TBaseHelper;
import shaded.parquet.org.apache.thrift.TException;
import shaded.parquet.org.apache.thrift.protocol.TCompactProtocol;
import shaded.parquet.org.apache.thrift.transport.TIOStreamTransport;
import shaded.parquet.org.apache.thrift.transport.TTransportException;

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
  private final List<RowGroup> rowGroups = new ArrayList<>();
  private final List<Slice> waiting = new ArrayList<>();
  private final List<Column> columns = new ArrayList<>();
  private final FSDataOutputStream out;
  private FileMetaData first;
  private long position;
  private long waitingBytes;
  private long waitingRows;

  ParquetSlicesWriter(FSDataOutputStream out) throws IOException {
    this.out = out;
    write(MAGIC, 0, MAGIC.length);
  }

  @Override
  public void addElement(RowData row) throws IOException {
    byte[] file = row.getBinary(0);
    FileMetaData footer = footer(file);
    if (first == null) {
      first = footer;
      for (ColumnDescriptor column : schema(footer).getColumns()) {
        columns.add(new Column(column.getPrimitiveType()));
      }
    } else if (!first.getSchema().equals(footer.getSchema())) {
      throw new IOException("a slice has other columns than those before it: " + schema(footer));
    }
    for (RowGroup rowGroup : footer.getRow_groups()) {
      List<ColumnChunk> chunks = rowGroup.getColumns();
      waiting.add(new Slice(file, chunks));
      for (int column = 0; column < chunks.size(); column++) {
        columns.get(column).add(chunks.get(column).getMeta_data());
      }
      waitingRows += rowGroup.getNum_rows();
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
    if (first == null) {
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
    long rows = rowGroups.stream().mapToLong(RowGroup::getNum_rows).sum();
    FileMetaData footer = new FileMetaData(1, first.getSchema(), rows, rowGroups);
    footer.setCreated_by(first.getCreated_by());
    footer.setColumn_orders(first.getColumn_orders());
    Util.writeFileMetaData(footer, counted);
    ByteBuffer end = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN);
    end.putInt((int) (position - start)).put(MAGIC);
    write(end.array(), 0, 8);
  }

  private void writeRowGroup() throws IOException {
    if (waiting.isEmpty()) {
      return;
    }
    long start = position;
    List<ColumnChunk> chunks = new ArrayList<>();
    for (int column = 0; column < columns.size(); column++) {
      long its = position;
      for (Slice slice : waiting) {
        write(slice.file, slice.starts[column], slice.sizes[column]);
      }
      chunks.add(columns.get(column).taken(its, position - its));
    }
    long uncompressed = chunks.stream().mapToLong(chunk -> chunk.getMeta_data().getTotal_uncompressed_size()).sum();
    RowGroup rowGroup = new RowGroup(chunks, uncompressed, waitingRows);
    rowGroup.setFile_offset(start);
    rowGroup.setTotal_compressed_size(position - start);
    rowGroup.setOrdinal((short) rowGroups.size());
    rowGroups.add(rowGroup);
    waiting.clear();
    waitingBytes = 0;
    waitingRows = 0;
  }

  private MessageType schema(FileMetaData footer) throws IOException {
    return converter.fromParquetMetadata(footer).getFileMetaData().getSchema();
  }

  private static FileMetaData footer(byte[] file) throws IOException {
    int end = file.length - MAGIC.length;
    int start = end < 8 ? -1 : end - 4 - ByteBuffer.wrap(file).order(ByteOrder.LITTLE_ENDIAN).getInt(end - 4);
    if (start < MAGIC.length || start >= end || !isMagic(file, 0) || !isMagic(file, end)) {
      throw new IOException("a slice is no whole Parquet file: " + file.length + " bytes");
    }
    FileMetaData footer = new FileMetaData();
    try {
      footer.read(new TCompactProtocol(new InPlace(file, start)) {
        @Override
        public ByteBuffer readBinary() throws TException {
          return TBaseHelper.rightSize(super.readBinary()); // Parquet calls array() on it, which were the whole slice
        }
      });
    } catch (TException e) {
      throw new IOException("a slice has no footer that can be read", e);
    }
    return footer;
  }

  private static boolean isMagic(byte[] file, int at) {
    return Arrays.equals(file, at, at + MAGIC.length, MAGIC, 0, MAGIC.length);
  }

  private void write(byte[] bytes, int offset, int length) throws IOException {
    out.write(bytes, offset, length);
    position += length;
  }

  /** A row group that waits: the bytes it is in, and where each column's pages are among them. */
  private static final class Slice {
    final byte[] file;
    final int[] starts;
    final int[] sizes;

    Slice(byte[] file, List<ColumnChunk> columns) {
      this.file = file;
      this.starts = new int[columns.size()];
      this.sizes = new int[columns.size()];
      for (int column = 0; column < columns.size(); column++) {
        ColumnMetaData its = columns.get(column).getMeta_data();
        starts[column] = Math.toIntExact(its.getData_page_offset());
        sizes[column] = Math.toIntExact(its.getTotal_compressed_size());
      }
    }
  }

  /** What the slices that wait come to in a column. */
  private final class Column {
    private final PrimitiveType type;
    private final Set<Encoding> encodings = EnumSet.noneOf(Encoding.class);
    private ColumnMetaData all;
    private Statistics<?> statistics; // null once a slice does not tell all of them

    Column(PrimitiveType type) {
      this.type = type;
    }

    void add(ColumnMetaData one) throws IOException {
      if (one.isSetDictionary_page_offset()) {
        throw new IOException("a slice has a dictionary, and a column chunk can have only one: " + one);
      }
      if (all == null) {
        all = new ColumnMetaData(one.getType(), null, one.getPath_in_schema(), one.getCodec(), 0, 0, 0, 0);
        statistics = Statistics.createStats(type);
      } else if (all.getCodec() != one.getCodec()) {
        throw new IOException("a slice is compressed in another way than those before it: " + one);
      }
      all.setNum_values(all.getNum_values() + one.getNum_values());
      all.setTotal_uncompressed_size(all.getTotal_uncompressed_size() + one.getTotal_uncompressed_size());
      encodings.addAll(one.getEncodings());
      Statistics<?> its = converter.fromParquetStatistics(first.getCreated_by(), one.getStatistics(), type);
      boolean tells = its.isNumNullsSet() && (its.hasNonNullValue() || its.getNumNulls() == one.getNum_values());
      if (!tells) {
        statistics = null;
      } else if (statistics != null) {
        statistics.mergeStatistics(its);
      }
    }

    /** Says where its pages are now, and begins anew. */
    ColumnChunk taken(long start, long size) {
      all.setEncodings(new ArrayList<>(encodings));
      all.setData_page_offset(start);
      all.setTotal_compressed_size(size);
      if (statistics != null) {
        all.setStatistics(ParquetMetadataConverter.toParquetStatistics(statistics));
      }
      ColumnChunk chunk = new ColumnChunk(start);
      chunk.setMeta_data(all);
      encodings.clear();
      all = null;
      return chunk;
    }
  }

  /** Bytes that Thrift reads where they are; from a stream, as Parquet's Util reads them, it takes one at a time. */
  private static final class InPlace extends TIOStreamTransport {
    private final byte[] bytes;
    private int position;

    InPlace(byte[] bytes, int position) throws TTransportException {
      super(InputStream.nullInputStream());
      this.bytes = bytes;
      this.position = position;
    }

    @Override
    public byte[] getBuffer() {
      return bytes;
    }

    @Override
    public int getBufferPosition() {
      return position;
    }

    @Override
    public int getBytesRemainingInBuffer() {
      return bytes.length - position;
    }

    @Override
    public void consumeBuffer(int length) {
      position += length;
    }

    @Override
    public int read(byte[] into, int offset, int length) {
      System.arraycopy(bytes, position, into, offset, length);
      position += length;
      return length;
    }
  }
}
