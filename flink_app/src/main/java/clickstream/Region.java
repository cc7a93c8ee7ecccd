package clickstream;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;

/**
 * Memory that a task and its Python process both have: a file that both have mapped. Only addresses in it cross by way of
 * Beam: where and how much, both INT64 and little-endian, and the file's name. <code>flink_app/region.py</code> is the other
 * side, and writes what becomes of a batch behind it.
 */
final class Region implements AutoCloseable {
  /** The first number says whether a batch is in here that has not come back yet. */
  static final int START = Long.BYTES;

  private static final int ADDRESS = 2 * Long.BYTES;
  private static final byte[] NOTHING = new byte[1 << 20];

  private final Path file;
  private MappedByteBuffer bytes;

  private Region(Path file) throws IOException {
    this.file = file;
    map();
  }

  /** Makes one that only this user can read; `close` removes it. */
  static Region create(Path folder) throws IOException {
    Path file = Files.createTempFile(folder.toAbsolutePath(), "clickstream-", ".region");
    Files.write(file, new byte[START]);
    return new Region(file);
  }

  static Region of(byte[] address) throws IOException {
    return new Region(Path.of(name(address)));
  }

  static String name(byte[] address) {
    return new String(address, ADDRESS, address.length - ADDRESS, StandardCharsets.UTF_8);
  }

  @Override
  public void close() throws IOException {
    Files.deleteIfExists(file);
  }

  boolean isFree() {
    return bytes.getLong(0) == 0;
  }

  void free() {
    bytes.putLong(0, 0);
  }

  /** Returns room for a batch, which it is taken for; behind it is some for what becomes of that, nearly always enough. */
  ByteBuffer take(int size) throws IOException {
    if (START + size > bytes.capacity()) {
      // Written, and not only set as the file's length: a full disk would else be met in the middle of a batch, as a signal.
      try (FileChannel channel = FileChannel.open(file, StandardOpenOption.WRITE)) {
        for (long at = channel.size(); at < START + 3L * size; ) {
          at += channel.write(ByteBuffer.wrap(NOTHING), at);
        }
      }
      map();
    }
    bytes.putLong(0, 1);
    return part(START, size);
  }

  /** Returns the bytes at an address in this region. */
  ByteBuffer at(byte[] address) throws IOException {
    ByteBuffer numbers = ByteBuffer.wrap(address).order(ByteOrder.LITTLE_ENDIAN);
    int start = Math.toIntExact(numbers.getLong());
    int size = Math.toIntExact(numbers.getLong());
    if (start + size > bytes.capacity()) {
      map(); // Python needed more room
    }
    return part(start, size);
  }

  byte[] address(int size) {
    byte[] name = file.toString().getBytes(StandardCharsets.UTF_8);
    ByteBuffer address = ByteBuffer.allocate(ADDRESS + name.length).order(ByteOrder.LITTLE_ENDIAN);
    return address.putLong(START).putLong(size).put(name).array();
  }

  private ByteBuffer part(int start, int size) {
    return bytes.duplicate().position(start).limit(start + size).slice().order(ByteOrder.LITTLE_ENDIAN);
  }

  private void map() throws IOException {
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
      bytes = channel.map(FileChannel.MapMode.READ_WRITE, 0, channel.size());
    }
  }
}
