package clickstream;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Comparator;
import java.util.List;
import java.util.TreeMap;
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
 * <p>Rows wait with those that arrived in the same hour, since each hour is a partition, and a batch of few hours costs less
 * than one of many. An hour is handed on when it has so many rows or so many bytes; the largest ones when many times as much
 * waits; and all of them when a row has waited so long or a checkpoint begins. Nothing is kept across a
 * checkpoint, so there is no state. Its hours are in order. Its layout is Arrow's, little-endian, each part padded to 8
 * bytes: the number of rows (INT32), then for each column either INT64 microseconds, or INT32 offsets, one more than rows,
 * and the bytes between them. <code>clickstream/packs.py</code> is the other side.
 *
 * <p>A region has one batch at a time, until {@link Unpack} has read what became of it. Nearly always that is one region; as
 * many as there are batches in a bundle, should somebody make bundles larger than one.
 */
public final class Pack extends AbstractStreamOperator<RowData>
    implements OneInputStreamOperator<RowData, RowData>, BoundedOneInput, ProcessingTimeCallback {
  /** A record may be 1 MiB: thousands of those would not fit into a worker. */
  static final long MOST_BYTES = 16 << 20;

  /** The most that wait, of all hours; a stream comes nowhere near, but a replay of records in no order does. */
  private static final long MOST_BYTES_WAITING = 4 * MOST_BYTES;

  /** As many batches' rows, if that is less. */
  private static final long MOST_BATCHES_WAITING = 16;

  private static final int MOST_REGIONS = 64;
  private static final long HOUR = 3_600_000;

  private final RowData.FieldGetter[] fields;
  private final boolean[] areMoments;
  private final List<String> names;
  private final int arrival;
  private final int mostRows;
  private final long millis;

  private transient TreeMap<Long, Rows> waiting; // by the hour they arrived in
  private transient int count; // of all that wait
  private transient long bytes;
  private transient long begun; // when the first of them came
  private transient Rows spare; // so that a stream, which has one hour at a time, needs no arrays anew
  private transient List<Region> regions;
  private transient boolean willBeLookedAt;

  /** Batches rows of these columns, one of which is their arrival_timestamp. */
  public Pack(RowType row, int mostRows, long millis) {
    List<LogicalType> types = row.getChildren();
    fields = new RowData.FieldGetter[types.size()];
    names = List.copyOf(row.getFieldNames());
    areMoments = new boolean[types.size()];
    for (int field = 0; field < fields.length; field++) {
      areMoments[field] = types.get(field).is(LogicalTypeFamily.TIMESTAMP);
      fields[field] = RowData.createFieldGetter(types.get(field), field);
    }
    arrival = names.indexOf("arrival_timestamp");
    this.mostRows = mostRows;
    this.millis = millis;
    setChainingStrategy(ChainingStrategy.ALWAYS);
  }

  @Override
  public void open() throws Exception {
    super.open();
    waiting = new TreeMap<>();
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
    if (waiting.isEmpty()) {
      begun = getProcessingTimeService().getCurrentProcessingTime();
      if (!willBeLookedAt) {
        lookAt(begun + millis);
      }
    }
    TimestampData arrived = (TimestampData) value(row, arrival);
    Rows those = waiting.computeIfAbsent(Math.floorDiv(arrived.getMillisecond(), HOUR), this::none);
    bytes -= those.bytes;
    those.add(row);
    bytes += those.bytes;
    count++;
    if (those.count == mostRows || those.bytes >= MOST_BYTES) {
      emit(List.of(those));
    } else if (count >= MOST_BATCHES_WAITING * mostRows || bytes >= MOST_BYTES_WAITING) {
      emitLargest();
    }
  }

  @Override
  public void onProcessingTime(long now) throws IOException {
    willBeLookedAt = false;
    if (!waiting.isEmpty() && now >= begun + millis) {
      emitAll();
    } else if (!waiting.isEmpty()) {
      lookAt(begun + millis);
    }
  }

  @Override
  public void prepareSnapshotPreBarrier(long checkpoint) throws IOException {
    emitAll();
  }

  @Override
  public void endInput() throws IOException {
    emitAll();
  }

  private void lookAt(long moment) {
    willBeLookedAt = true;
    getProcessingTimeService().registerTimer(moment, this);
  }

  private Rows none(long hour) {
    Rows none = spare == null ? new Rows() : spare;
    spare = null;
    none.hour = hour;
    bytes += none.bytes;
    return none;
  }

  private Object value(RowData row, int column) {
    Object value = fields[column].getFieldOrNull(row);
    if (value == null && !names.get(column).equals("payload")) {
      throw new IllegalArgumentException(
          "a record has no " + names.get(column) + ": it is not from a stream, nor from a table of this job");
    }
    return value;
  }

  private void emitAll() throws IOException {
    while (!waiting.isEmpty()) {
      emit(fitting(waiting.values()));
    }
  }

  private void emitLargest() throws IOException {
    List<Rows> bySize = new ArrayList<>(waiting.values());
    bySize.sort(Comparator.comparingLong((Rows rows) -> rows.bytes).reversed());
    List<Rows> largest = fitting(bySize);
    largest.sort(Comparator.comparingLong(rows -> rows.hour));
    emit(largest);
  }

  /** Returns the first of them, and of the others those that its batch has room for. */
  private List<Rows> fitting(Collection<Rows> these) {
    List<Rows> batch = new ArrayList<>();
    int count = 0;
    long size = 0;
    for (Rows rows : these) {
      if (batch.isEmpty() || (count + rows.count <= mostRows && size + rows.bytes <= MOST_BYTES)) {
        batch.add(rows);
        count += rows.count;
        size += rows.bytes;
      }
    }
    return batch;
  }

  private void emit(List<Rows> batch) throws IOException {
    int inAll = batch.stream().mapToInt(rows -> rows.count).sum();
    int size = 8;
    for (int column = 0; column < fields.length; column++) {
      size += size(batch, column, inAll);
    }
    Region region = freeRegion();
    ByteBuffer pack = region.take(size);
    pack.putInt(inAll).position(8);
    for (int column = 0; column < fields.length; column++) {
      write(batch, column, pack);
    }
    for (Rows rows : batch) {
      waiting.remove(rows.hour);
      count -= rows.count;
      bytes -= rows.bytes;
    }
    if (waiting.isEmpty()) {
      spare = batch.get(0);
      spare.clear();
    }
    output.collect(new StreamRecord<>(GenericRowData.of((Object) region.address(size))));
  }

  private int size(List<Rows> batch, int column, int count) {
    if (areMoments[column]) {
      return Long.BYTES * count;
    }
    int size = batch.stream().mapToInt(rows -> rows.columns[column].end()).sum();
    return padded(Integer.BYTES * (count + 1)) + padded(size);
  }

  private void write(List<Rows> batch, int column, ByteBuffer pack) {
    if (areMoments[column]) {
      batch.forEach(rows -> rows.columns[column].writeMoments(pack));
      return;
    }
    int end = 0;
    pack.putInt(end);
    for (Rows rows : batch) {
      end = rows.columns[column].writeEnds(pack, end);
    }
    pack.position(padded(pack.position()));
    batch.forEach(rows -> rows.columns[column].writeBytes(pack));
    pack.position(padded(pack.position()));
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

  /** The rows of an hour that wait. */
  private final class Rows {
    /** About what its arrays take when there is a single row: thousands of hours that have one are no small thing. */
    private static final long AT_LEAST = 4 << 10;

    private final Column[] columns = new Column[fields.length];
    private long hour;
    private int count;
    private long bytes = AT_LEAST;

    Rows() {
      for (int column = 0; column < columns.length; column++) {
        columns[column] = new Column(areMoments[column]);
      }
    }

    void clear() {
      count = 0;
      bytes = AT_LEAST;
      for (Column column : columns) {
        column.count = 0;
      }
    }

    void add(RowData row) {
      for (int column = 0; column < columns.length; column++) {
        bytes += columns[column].add(value(row, column));
      }
      count++;
    }
  }

  /** One column of those rows: moments, or texts or bytes one after the other and where each of them ends. */
  private static final class Column {
    private static final byte[] NOTHING = {};

    private long[] moments;
    private int[] ends;
    private byte[] bytes;
    private int count;

    Column(boolean isOfMoments) {
      if (isOfMoments) {
        moments = new long[16];
      } else {
        ends = new int[16];
        bytes = new byte[1 << 10];
      }
    }

    int end() {
      return count == 0 ? 0 : ends[count - 1];
    }

    int add(Object value) {
      if (moments != null) {
        if (count == moments.length) {
          moments = Arrays.copyOf(moments, 2 * count);
        }
        TimestampData moment = (TimestampData) value;
        moments[count++] = moment.getMillisecond() * 1000 + moment.getNanoOfMillisecond() / 1000;
        return Long.BYTES;
      }
      byte[] its = value instanceof StringData ? ((StringData) value).toBytes() : (byte[]) value;
      if (its == null) {
        its = NOTHING; // a payload that is not there is an empty one, and rejected as such
      }
      int start = end();
      int end = start + its.length;
      if (end > bytes.length) {
        bytes = Arrays.copyOf(bytes, Math.max(end, 2 * bytes.length));
      }
      if (count == ends.length) {
        ends = Arrays.copyOf(ends, 2 * count);
      }
      System.arraycopy(its, 0, bytes, start, its.length);
      ends[count++] = end;
      return its.length;
    }

    void writeMoments(ByteBuffer pack) {
      pack.asLongBuffer().put(moments, 0, count);
      pack.position(pack.position() + Long.BYTES * count);
    }

    int writeEnds(ByteBuffer pack, int before) {
      for (int row = 0; row < count; row++) {
        pack.putInt(before + ends[row]);
      }
      return before + end();
    }

    void writeBytes(ByteBuffer pack) {
      pack.put(bytes, 0, end());
    }
  }
}
