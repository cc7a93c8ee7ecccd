package clickstream;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.HashMap;
import java.util.Map;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.ChainingStrategy;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;

/** Makes rows again of what became of a batch: two texts and BYTES, none of them null, laid out as in {@link Pack}. */
public final class Unpack extends AbstractStreamOperator<RowData> implements OneInputStreamOperator<RowData, RowData> {
  private transient Map<String, Region> regions;

  public Unpack() {
    setChainingStrategy(ChainingStrategy.ALWAYS);
  }

  @Override
  public void open() throws Exception {
    super.open();
    regions = new HashMap<>();
  }

  @Override
  public void processElement(StreamRecord<RowData> record) throws IOException {
    byte[] address = record.getValue().getBinary(0);
    String name = Region.name(address);
    if (!regions.containsKey(name)) {
      regions.put(name, Region.of(address));
    }
    Region region = regions.get(name);
    ByteBuffer pack = region.at(address);
    int rows = pack.getInt(0);
    Column goesTo = new Column(pack, 8, rows);
    Column key = new Column(pack, goesTo.end, rows);
    Column content = new Column(pack, key.end, rows);
    for (int row = 0; row < rows; row++) {
      StringData first = StringData.fromBytes(goesTo.get(row));
      output.collect(new StreamRecord<>(GenericRowData.of(first, StringData.fromBytes(key.get(row)), content.get(row))));
    }
    region.free();
  }

  /** Where the values of a column are in a pack. */
  private static final class Column {
    private final ByteBuffer pack;
    private final int offsets;
    private final int values;
    final int end;

    Column(ByteBuffer pack, int at, int rows) {
      this.pack = pack;
      offsets = at;
      values = at + Pack.padded(Integer.BYTES * (rows + 1));
      end = values + Pack.padded(start(rows) - values);
    }

    byte[] get(int row) {
      byte[] value = new byte[start(row + 1) - start(row)];
      pack.position(start(row));
      pack.get(value);
      return value;
    }

    private int start(int row) {
      return values + pack.getInt(offsets + Integer.BYTES * row);
    }
  }
}
