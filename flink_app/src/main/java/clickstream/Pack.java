package clickstream;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.BoundedOneInput;
import org.apache.flink.streaming.api.operators.ChainingStrategy;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.api.common.operators.ProcessingTimeService.ProcessingTimeCallback;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.LogicalTypeFamily;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.util.IOUtils;

/**
 * Packs rows into batches in memory that Python has, too ({@link Region}), and hands on where they are, a row each: through
 * Beam they would be copied a dozen times on their way.
 *
 * <p>A batch is complete when it has so many rows or so many bytes, is so old, or a checkpoint begins: nothing is kept across
 * a checkpoint, so there is no state. Its layout is Arrow's, little-endian, each part padded to 8 bytes: the number of
 * rows (INT32), then for each column either INT64 microseconds, or INT32 offsets, one more than rows, and the bytes
 * between them. <code>clickstream/packs.py</code> is the other side.
 *
 * <p>A region has one batch at a time, until {@link Unpack} has read what became of it. Nearly always that is one region; as
 * many as there are batches in a bundle, should somebody make bundles larger than one.
 */
public final class Pack extends AbstractStreamOperator<RowData>
    implements OneInputStreamOperator<RowData, RowData>, BoundedOneInput, ProcessingTimeCallback {
  /** A record may be 1 MiB: thousands of those would not fit into a worker. */
  static final long MOST_BYTES = 16 << 20;

  private static final int MOST_REGIONS = 64;

  private final RowData.FieldGetter[] fields;
  private final boolean[] areMoments;
  private final List<String> names;
  private final int mostRows;
  private final long millis;

  private transient Column[] columns;
  private transient List<Region> regions;
  private transient int rows;
  private transient long bytes;
  private transient long begun;
  private transient boolean willBeLookedAt;

  public Pack(RowType row, int mostRows, long millis) {
    List<LogicalType> types = row.getChildren();
    fields = new RowData.FieldGetter[types.size()];
    names = List.copyOf(row.getFieldNames());
    areMoments = new boolean[types.size()];
    for (int field = 0; field < fields.length; field++) {
      areMoments[field] = types.get(field).is(LogicalTypeFamily.TIMESTAMP);
      fields[field] = RowData.createFieldGetter(types.get(field), field);
    }
    this.mostRows = mostRows;
    this.millis = millis;
    setChainingStrategy(ChainingStrategy.ALWAYS);
  }

  @Override
  public void open() throws Exception {
    super.open();
    columns = new Column[fields.length];
    for (int column = 0; column < columns.length; column++) {
      columns[column] = new Column(names.get(column), areMoments[column], mostRows);
    }
    regions = new ArrayList<>();
  }

  @Override
  public void close() throws Exception {
    super.close();
    if (regions != null) {
      IOUtils.closeAll(regions);
    }
  }

  @Override
  public void processElement(StreamRecord<RowData> record) throws IOException {
    RowData row = record.getValue();
    if (rows == 0) {
      begun = getProcessingTimeService().getCurrentProcessingTime();
      if (!willBeLookedAt) {
        lookAt(begun + millis);
      }
    }
    for (int column = 0; column < columns.length; column++) {
      bytes += columns[column].add(rows, fields[column].getFieldOrNull(row));
    }
    rows++;
    if (rows == mostRows || bytes >= MOST_BYTES) {
      emit();
    }
  }

  @Override
  public void onProcessingTime(long now) throws IOException {
    willBeLookedAt = false;
    if (rows > 0 && now >= begun + millis) {
      emit();
    } else if (rows > 0) {
      lookAt(begun + millis);
    }
  }

  @Override
  public void prepareSnapshotPreBarrier(long checkpoint) throws IOException {
    emit();
  }

  @Override
  public void endInput() throws IOException {
    emit();
  }

  private void lookAt(long moment) {
    willBeLookedAt = true;
    getProcessingTimeService().registerTimer(moment, this);
  }

  private void emit() throws IOException {
    if (rows == 0) {
      return;
    }
    int size = 8;
    for (Column column : columns) {
      size += column.size(rows);
    }
    Region region = freeRegion();
    ByteBuffer pack = region.take(size);
    pack.putInt(rows).position(8);
    for (Column column : columns) {
      column.write(pack, rows);
    }
    rows = 0;
    bytes = 0;
    output.collect(new StreamRecord<>(GenericRowData.of((Object) region.address(size))));
  }

  private Region freeRegion() throws IOException {
    for (Region region : regions) {
      if (region.isFree()) {
        return region;
      }
    }
    if (regions.size() == MOST_REGIONS) {
      throw new IllegalStateException(
          MOST_REGIONS + " batches wait for Python: its bundles are too large, or Flink's operator chaining is off");
    }
    String[] folders = getContainingTask().getEnvironment().getTaskManagerInfo().getTmpDirectories();
    Region region = Region.create(Path.of(folders[0]));
    regions.add(region);
    return region;
  }

  static int padded(int size) {
    return (size + 7) & -8;
  }

  /** One column of the rows so far. */
  private static final class Column {
    private static final byte[] NOTHING = {};

    private final String name;
    private final long[] moments; // or
    private final int[] offsets;
    private byte[] bytes = new byte[1 << 16];

    Column(String name, boolean isOfMoments, int mostRows) {
      this.name = name;
      moments = isOfMoments ? new long[mostRows] : null;
      offsets = isOfMoments ? null : new int[mostRows + 1];
    }

    int add(int row, Object value) {
      if (value == null && !name.equals("payload")) {
        throw new IllegalArgumentException("a record has no " + name + ": it is not from a stream, nor from a table of this job");
      }
      if (moments != null) {
        TimestampData moment = (TimestampData) value;
        moments[row] = moment.getMillisecond() * 1000 + moment.getNanoOfMillisecond() / 1000;
        return Long.BYTES;
      }
      byte[] its = value instanceof StringData ? ((StringData) value).toBytes() : (byte[]) value;
      if (its == null) {
        its = NOTHING; // a payload that is not there is an empty one, and rejected as such
      }
      int end = offsets[row] + its.length;
      if (end > bytes.length) {
        bytes = Arrays.copyOf(bytes, Math.max(end, 2 * bytes.length));
      }
      System.arraycopy(its, 0, bytes, offsets[row], its.length);
      offsets[row + 1] = end;
      return its.length;
    }

    int size(int rows) {
      return moments != null ? Long.BYTES * rows : padded(Integer.BYTES * (rows + 1)) + padded(offsets[rows]);
    }

    void write(ByteBuffer pack, int rows) {
      int start = pack.position();
      if (moments != null) {
        pack.asLongBuffer().put(moments, 0, rows);
      } else {
        pack.asIntBuffer().put(offsets, 0, rows + 1);
        pack.position(start + padded(Integer.BYTES * (rows + 1)));
        pack.put(bytes, 0, offsets[rows]);
      }
      pack.position(start + size(rows));
    }
  }
}
